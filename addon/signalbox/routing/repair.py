"""Repairs a request after a refusal, so that the same target can be asked again."""

import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from signalbox.anthropic import betas
from signalbox.anthropic.identity import IdentityTranslator
from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.json_edit import Body, BodyError
from signalbox.anthropic.thinking import (
    is_missing,
    is_off,
    is_refused,
    is_wanted_back,
    switched_off,
    with_placeholders,
    without_thinking,
)
from signalbox.anthropic.unsupported_fields import rejected_by
from signalbox.config.rules import CLAUDE_APIS, Provider, Rules
from signalbox.routing.attempts import Attempt
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import ProviderConstraints
from signalbox.routing.plan import Candidate
from signalbox.routing.sessions import Sessions
from signalbox.routing.work import Work

log = logging.getLogger("signalbox")


class Provenance(Protocol):
    """Which provider issued which thinking block; `state.provenance.ProvenanceStore`."""

    key: bytes

    @property
    def is_written(self) -> bool:
        """Whether all that was learned here is in the state folder, for other routers to read."""

    def issuer_of(self, block: ThinkingBlock) -> str | None: ...
    def learn(self, digests: Sequence[bytes], provider: str) -> None: ...


class UnsupportedFields(Protocol):
    """Fields and betas that models have refused; `state.unsupported_store.UnsupportedStore`."""

    def rejected(self, provider: str, model: str) -> frozenset[str]: ...
    def learn(self, provider: str, model: str, fields: Collection[str]) -> None: ...


class RequestRepair:
    """Repairs one request, whose body was received as `body`. Each kind of refusal is repaired once."""

    def __init__(
        self,
        facts: Facts,
        body: Body,
        rules: Rules,
        provenance: Provenance,
        unsupported: UnsupportedFields,
        sessions: Sessions,
        *,
        counts: bool,
    ) -> None:
        """`counts`: the request only counts tokens. Its path accepts fewer fields than the messages path, so
        nothing is learned from fields that are refused there."""
        self._conversation = facts.conversation
        self._body = body
        self._rules = rules
        self._provenance = provenance
        self._unsupported = unsupported
        self._sessions = sessions
        self._counts = counts
        self._refusing: set[str] = set()
        """Providers that refused the thinking in the request."""
        self._narrowed: dict[str, frozenset[str]] = {}
        """By provider, those whose thinking it refused."""
        self._disabling: set[str] = set()
        """Providers among them whose refusal means that thinking must be disabled."""
        self._wanting: set[str] = set()
        """Providers that require thinking in the history."""
        self._named: set[tuple[str, str, str]] = set()
        """(provider, model, field or beta that a refusal has named)"""

    def constraints(self, candidate: Candidate) -> ProviderConstraints:
        """What is known about what this target accepts."""
        provider, provenance = candidate.provider, self._provenance
        return ProviderConstraints(
            provenance.issuer_of,
            kin=self._kin(provider),
            rejected=self._unsupported.rejected(provider.name, candidate.model or "")
            if _learns(candidate)
            else frozenset(),
            refuses_thinking=provider.name in self._refusing,
            disables_thinking=provider.name in self._disabling,
            wants_thinking=self._wants_thinking(provider.name),
            refused=self._sessions.refused(self._conversation, provider.name),
            key=provenance.key,
        )

    def repair(self, attempt: Attempt, status: int, error: bytes) -> Work[bool]:
        """Learns from the refusal of an attempt. Returns whether its target would get another request now."""
        if _is_identity(attempt) and is_wanted_back(status, error):
            return (yield from self._with_placeholders(attempt))
        if is_refused(status, error):
            return (yield from self._without_thinking(attempt, is_wrong=not is_missing(error)))
        return not self._counts and (yield from self._without_fields(attempt, status, error))

    def _wants_thinking(self, name: str) -> bool:
        return name in self._wanting or self._sessions.wants_thinking(self._conversation, name)

    def _with_placeholders(self, attempt: Attempt) -> Work[bool]:
        """Adds placeholders for the thinking that answers of other providers lack."""
        name = attempt.provider.name
        if attempt.provider.serves_claude or name in self._wanting:
            return False
        if not (yield lambda: with_placeholders(self._sent(attempt))):
            return False
        self._wanting.add(name)
        self._sessions.wanted_thinking(self._conversation, name)
        return True

    def _sent(self, attempt: Attempt) -> Body:
        try:
            return Body.parse(_sent_body(attempt))
        except BodyError:  # compressed, as received
            return self._body

    def _kin(self, provider: Provider) -> frozenset[str]:
        """The providers whose signed thinking this one takes."""
        refused = self._narrowed.get(provider.name, frozenset())
        return (
            self._rules.kin_of(provider)
            - self._sessions.refused_kin(self._conversation, provider.name)
            - refused
        )

    def _without_thinking(self, attempt: Attempt, *, is_wrong: bool) -> Work[bool]:
        """`is_wrong`: the thinking that was sent must not be sent to this provider again. If some of it was
        issued by its kin, only that is left out at first."""
        name, is_identity = attempt.provider.name, _is_identity(attempt)
        sent = self._body  # a translated body has no such blocks
        if is_identity:
            sent = yield partial(self._sent, attempt)
        thinking: _Thinking = yield partial(_thinking_in, sent, self._provenance, attempt)
        kin = self._kin(attempt.provider) & thinking.issuers
        if is_wrong and kin and attempt.provider.thinking == "own":
            self._narrowed[name] = self._narrowed.get(name, frozenset()) | kin
            self._sessions.refused_thinking_of(self._conversation, name, kin)
            return True
        disables = is_identity and not (is_wrong or attempt.provider.serves_claude)
        is_on = is_identity and (bool(switched_off(sent)) or (disables and not is_off(sent)))
        if name in self._refusing or not (thinking.blocks or is_on):
            return False
        self._refusing.add(name)
        if disables:
            self._disabling.add(name)
        if is_wrong:
            # Thinking of Claude may be bound to its conversation, that of others to an account alone.
            conversation = self._conversation if is_identity else None
            self._sessions.refused_thinking(conversation, name, thinking.digests)
        return True

    def _without_fields(self, attempt: Attempt, status: int, error: bytes) -> Work[bool]:
        """Learns the fields and betas of the attempt that the refusal names."""
        provider, model, learned = attempt.provider, attempt.candidate.model or "", self._unsupported
        named: frozenset[str] = frozenset()
        if _learns(attempt.candidate):
            named = yield partial(_rejected, attempt, status, error)
        if new := named - learned.rejected(provider.name, model):
            learned.learn(provider.name, model, new)
            log.warning("%s does not take %s: left out from now on", provider.name, ", ".join(sorted(new)))
        refused = {(provider.name, model, name) for name in named}
        is_new = not refused <= self._named
        self._named |= refused
        return is_new


def _learns(candidate: Candidate) -> bool:
    """Whether refused fields are left out. `beta` is about the fields of Claude's APIs alone."""
    return candidate.provider.beta == "learn" or candidate.api not in CLAUDE_APIS


class _Thinking(NamedTuple):
    """The thinking blocks of a request."""

    blocks: int
    digests: frozenset[bytes]
    issuers: frozenset[str]


def _thinking_in(sent: Body, provenance: Provenance, attempt: Attempt) -> _Thinking:
    """Of those blocks that the attempt carried."""
    digests: set[bytes] = set()
    issuers: set[str] = set()
    translator = attempt.outgoing.translator if attempt.outgoing is not None else IdentityTranslator()

    def note(block: ThinkingBlock) -> bool:
        if not translator.carries(block):
            return True
        digests.add(block.digest(provenance.key) or b"")
        issuers.add(provenance.issuer_of(block) or "")
        return False

    return _Thinking(
        without_thinking(sent, note).count, frozenset(digests - {b""}), frozenset(issuers - {""})
    )


def _is_identity(attempt: Attempt) -> bool:
    return attempt.outgoing is not None and attempt.outgoing.translator.is_identity


def _sent_body(attempt: Attempt) -> bytes:
    return attempt.outgoing.body if attempt.outgoing is not None else b""


def _rejected(attempt: Attempt, status: int, error: bytes) -> frozenset[str]:
    outgoing = attempt.outgoing
    if outgoing is None:
        return frozenset()
    sent = betas.split(value for name, value in outgoing.headers if name.lower() == "anthropic-beta")
    try:
        body = Body.parse(outgoing.body)
    except BodyError:  # compressed, as received
        return frozenset()
    named = rejected_by(status, error, body, sent)
    return named.union(outgoing.translator.refusals(status, error, body))
