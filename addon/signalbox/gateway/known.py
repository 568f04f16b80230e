"""What the router remembers of earlier requests."""

from typing import NamedTuple, Protocol

from signalbox.config.rules import Provider, Rules
from signalbox.routing.credentials import Caller
from signalbox.routing.health import ProviderHealth
from signalbox.routing.match import Quota
from signalbox.routing.plan import Plan
from signalbox.routing.sessions import Sessions
from signalbox.state.provenance import ProvenanceStore
from signalbox.state.unsupported_store import UnsupportedStore


class Meters(Protocol):
    """What accounts allow and whether logins are there; `metering.Metering` is that."""

    def token(self, provider: Provider) -> str | None: ...
    def refusal(self, provider: Provider, model: str | None, caller: Caller) -> tuple[str, str] | None: ...
    def used(self, rules: Rules, caller: Caller) -> Quota: ...
    def saw(self, rules: Rules, chosen: Plan, caller: Caller) -> None: ...


class Known(NamedTuple):
    meters: Meters
    sessions: Sessions
    health: ProviderHealth
    issued: ProvenanceStore
    learned: UnsupportedStore
