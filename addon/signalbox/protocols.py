"""The protocols of providers (`api` in rules.yaml), one row each.

A row holds how a request is prepared and what the protocol cannot do. The `Translator` in a prepared request
reads the answer.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from signalbox.anthropic.api import ANTHROPIC_VERSION, MODELS
from signalbox.anthropic.json_edit import Body
from signalbox.config.rules import Api, Provider
from signalbox.openai.prepare import dialect, prepare_chat
from signalbox.openai.request import untranslatable
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import Incoming, Outgoing, ProviderConstraints
from signalbox.routing.plan import UNTRANSLATABLE, Candidate
from signalbox.routing.prepare import prepare_messages
from signalbox.routing.vertex import prepare_vertex


class Prepare(Protocol):
    """Prepares the request to one target. Raises UntranslatableError."""

    def __call__(
        self,
        candidate: Candidate,
        facts: Facts,
        incoming: Incoming,
        *,
        key: str | None,
        constraints: ProviderConstraints,
        is_only_candidate: bool,
        seed: str,
    ) -> Outgoing:
        """`key` is the provider's key to use, or the token of its login. `is_only_candidate`: no other
        attempt can follow, so that a compressed answer may be passed on as it is (the contract, section 5).
        `seed` is random text that makes the ids of a translated answer unique.
        """
        ...


class ProviderApi(NamedTuple):
    """One protocol."""

    prepare: Prepare
    untranslatable: Callable[[Body], str]
    """Why the protocol cannot express a Messages body, for people; empty if it can."""
    spelling: Callable[[Provider], str]
    """The dialect in which a provider speaks the protocol, for people; empty for the Messages API."""
    fills_cache: bool
    """Whether a request with `max_tokens: 0` fills the provider's prompt cache and costs no answer."""
    models_path: str
    """Path of the model list below the provider's URL; empty if there is none."""
    models_paged: bool
    """Whether that list comes in pages."""
    models_headers: tuple[tuple[str, str], ...] = ()
    """Headers that a request for it needs."""


PROVIDER_APIS: Mapping[Api, ProviderApi] = {
    "anthropic": ProviderApi(
        prepare=prepare_messages,
        untranslatable=lambda _: "",
        spelling=lambda _: "",
        fills_cache=True,
        models_path=MODELS,
        models_paged=True,
        models_headers=(("anthropic-version", ANTHROPIC_VERSION),),
    ),
    "vertex": ProviderApi(
        prepare=prepare_vertex,
        untranslatable=lambda _: "",
        spelling=lambda _: "Messages, as Vertex AI takes them",
        fills_cache=True,
        models_path="",
        models_paged=False,
    ),
    "openai": ProviderApi(
        prepare=prepare_chat,
        untranslatable=untranslatable,
        spelling=lambda provider: f"chat completions, as {dialect(provider).name} speaks them",
        fills_cache=False,
        models_path="/models",
        models_paged=False,
    ),
}


def api_of(candidate: Candidate) -> ProviderApi:
    """The protocol in which a target is asked."""
    return PROVIDER_APIS[candidate.api]


def translation_refusal(candidate: Candidate, facts: Facts) -> tuple[str, str] | None:
    """A `routing.plan.RefusalCheck`: whether the target's protocol cannot express the request."""
    if facts.body is None:
        return None
    why = api_of(candidate).untranslatable(facts.body)
    return (UNTRANSLATABLE, why) if why else None
