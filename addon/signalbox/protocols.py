"""The protocols of providers (`api` in rules.yaml), one row each.

A row holds how a request is prepared and what the protocol cannot do. The `Translator` in a prepared request
reads the answer.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from signalbox.anthropic.api import ANTHROPIC_VERSION, MODELS
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.platforms import without_server_tools
from signalbox.config.rules import Api, Provider, Rules
from signalbox.openai import prepare as chat
from signalbox.openai.request import untranslatable as untranslatable_as_chat
from signalbox.responses import prepare as responses
from signalbox.responses.request import untranslatable as untranslatable_as_response
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
    untranslatable: Callable[[Provider, Body], str]
    """Why a provider of the protocol cannot be sent a Messages body, for people; empty if it can."""
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
        untranslatable=lambda provider, body: without_server_tools(provider.cloud, body),
        spelling=lambda _: "",
        fills_cache=True,
        models_path=MODELS,
        models_paged=True,
        models_headers=(("anthropic-version", ANTHROPIC_VERSION),),
    ),
    "vertex": ProviderApi(
        prepare=prepare_vertex,
        untranslatable=lambda provider, body: without_server_tools(provider.cloud, body),
        spelling=lambda _: "Messages, as Vertex AI takes them",
        fills_cache=True,
        models_path="",
        models_paged=False,
    ),
    "openai": ProviderApi(
        prepare=chat.prepare_chat,
        untranslatable=lambda provider, body: untranslatable_as_chat(body, chat.dialect(provider)),
        spelling=lambda provider: f"chat completions, as {chat.dialect(provider).name} speaks them",
        fills_cache=False,
        models_path="/models",
        models_paged=False,
    ),
    "responses": ProviderApi(
        prepare=responses.prepare_responses,
        untranslatable=lambda provider, body: untranslatable_as_response(body, responses.dialect(provider)),
        spelling=lambda provider: f"Responses, as {responses.dialect(provider).name} speaks it",
        fills_cache=False,
        models_path="/models",
        models_paged=False,
    ),
}


def api_of(candidate: Candidate) -> ProviderApi:
    """The protocol in which a target is asked."""
    return PROVIDER_APIS[candidate.api]


def translation_refusal(candidate: Candidate, facts: Facts) -> tuple[str, str] | None:
    """A `plan.RefusalCheck`: whether the target's protocol cannot express the request."""
    why = api_of(candidate).untranslatable(candidate.provider, facts.body) if facts.body is not None else ""
    return (UNTRANSLATABLE, why) if why else None


def who_could(rules: Rules, body: Body) -> str:
    """Which providers of the rules could serve a request: `anthropic and openai could serve it`."""
    able = [name for name, provider in rules.providers.items() if _could(provider, body)]
    listed = " and ".join(filter(None, (", ".join(able[:-1]), *able[-1:])))
    return f"{listed or 'no provider of the rules'} could serve it"


def _could(provider: Provider, body: Body) -> bool:
    """Of other providers of the Messages API it is not known what they can do of Anthropic's own."""
    if provider.is_anthropic:
        return True
    known = (api for api in provider.apis if api != "anthropic" or provider.cloud is not None)
    return any(not PROVIDER_APIS[api].untranslatable(provider, body) for api in known)
