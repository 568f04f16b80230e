"""What happens in the demo, step by step; each step checks that it happened as it is told."""

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from signalbox.demo.account import Account
from signalbox.demo.caller import Answered, Caller, request
from signalbox.demo.process import RouterProcess
from signalbox.demo.providers import PAUSE, FakeProvider
from signalbox.record.console import count
from signalbox.record.entry import Entry
from signalbox.record.request_log import entries
from signalbox.routing.credentials import masked_value

LOGIN = "sk-ant-fake-login-of-the-caller"
ZAI_KEY = "zai-fake-key-of-the-router"
HAIKU, SONNET, OPUS, FABLE = "claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5", "claude-fable-5"
LIVE_EDIT = 1.0
"""Seconds within which a saved edit applies."""

RULES = """\
providers:
  anthropic: {{url: "{anthropic}", auth: client}}
  zai: {{url: "{zai}", key: "${{ZAI_API_KEY}}", count_tokens: estimate}}
  local: {{url: "{local}/v1", api: openai}}
rules:
  - {{match: "*haiku*", to: [zai/glm-4.5-air, anthropic]}}
  - {{match: "*sonnet*", to: {sonnet}}}
  - {{match: "*fable*", to: local/qwen3-coder}}
  - {{match: "*", to: anthropic}}
"""


class StoryError(Exception):
    """Something did not happen as told; the message says what did."""


class Fakes(NamedTuple):
    anthropic: FakeProvider
    zai: FakeProvider
    local: FakeProvider


class Story:
    def __init__(self, router: RouterProcess, fakes: Fakes, account: Account) -> None:
        self._router = router
        self._fakes = fakes
        self._anthropic, self._zai, self._local = fakes
        self._account = account
        self._caller = Caller(router.port, LOGIN)

    def tell(self) -> None:
        """Raises StoryError, or OSError where a connection fails."""
        self._haiku()
        self._sonnet()
        self._opus()
        self._fable()
        self._count_tokens()
        self._live_edit()
        self._failover()
        self._credentials()
        self._tokens()

    def _haiku(self) -> None:
        self._account.heading("1. Haiku goes to Z.ai")
        answered = self._caller.message(HAIKU, "Is the signal green?")
        self._account.say(answered.text, "green")
        self._arrived(answered, HAIKU, "zai", "glm-4.5-air")

    def _sonnet(self) -> None:
        self._account.heading("2. Sonnet goes to Z.ai too, streamed as it is written")
        self._account.word("  ")
        answered = self._caller.stream(SONNET, "Tell me about signal boxes.", self._account.word)
        self._account.word("\n")
        self._arrived(answered, SONNET, "zai", "glm-4.7")
        took = answered.last - answered.first
        expect(took > PAUSE, f"all words came at once, within {took:.3f} s")
        self._account.done(f"first word after {ms(answered.first)}, last after {ms(answered.last)}")

    def _opus(self) -> None:
        self._account.heading("3. Opus goes to Anthropic, on the caller's own login")
        prompt = "And the points?"
        answered = self._caller.message(OPUS, prompt)
        self._account.say(answered.text, "green")
        self._arrived(answered, OPUS, "anthropic", OPUS)
        same = self._anthropic.arrived[-1].body == request(OPUS, prompt)
        expect(same, "the body that arrived is not the one that was sent")
        self._account.done("the body arrived byte for byte")

    def _fable(self) -> None:
        self._account.heading("4. Fable goes to a model on this machine, which speaks chat completions")
        self._account.word("  ")
        answered = self._caller.stream(FABLE, "Do you speak Anthropic's?", self._account.word)
        self._account.word("\n")
        self._arrived(answered, FABLE, "local", "qwen3-coder")
        path = self._local.arrived[-1].path
        expect(path == "/v1/chat/completions", f"it was asked at {path}")
        self._account.done("translated both ways, word by word")

    def _count_tokens(self) -> None:
        self._account.heading("5. count_tokens for a model at Z.ai is answered by the router itself")
        before = len(self._zai.arrived)
        answered = self._caller.count_tokens(SONNET, "How many tokens are these?")
        expect(answered.status == 200, f"count_tokens was answered with {answered.status}")
        expect(len(self._zai.arrived) == before, "Z.ai was asked")
        self._account.done(f"{answered.answer['input_tokens']} tokens, estimated; Z.ai was not asked")

    def _live_edit(self) -> None:
        self._account.heading("6. rules.yaml is edited: sonnet shall go to Anthropic now")
        self._account.say('- {match: "*sonnet*", to: anthropic}', "yellow")
        write_rules(self._router, self._fakes, sonnet="anthropic")
        saved = time.monotonic()
        answered = self._caller.message(SONNET, "Who answers now?")
        while answered.provider != "anthropic" and time.monotonic() - saved < LIVE_EDIT:
            time.sleep(0.05)
            answered = self._caller.message(SONNET, "And now?")
        after = time.monotonic() - saved
        expect(
            answered.provider == "anthropic", f"{after:.1f} s later sonnet still went to {answered.provider}"
        )
        self._account.say(answered.text, "green")
        self._account.done(f"in force {ms(after)} after the file was saved, without a restart")

    def _failover(self) -> None:
        self._account.heading("7. Z.ai is overloaded: the next target of the rule answers")
        self._zai.overloaded = True
        answered = self._caller.message(HAIKU, "Is anybody there?")
        self._zai.overloaded = False
        self._account.say(answered.text, "green")
        self._arrived(answered, HAIKU, "anthropic", HAIKU)
        expect(answered.attempts == "zai:529 anthropic:200", f"the attempts were {answered.attempts}")
        self._account.done(f"attempts: {answered.attempts}; the router's log says:")
        self._account.logged(self._logged("↻ zai 529"))

    def _logged(self, beginning: str) -> str:
        """The line of the router's log that begins so after its clock."""
        end = time.monotonic() + 2
        while beginning not in (log := self._router.log()):
            expect(time.monotonic() < end, f"the router logged no {beginning}")
            time.sleep(0.02)
        return log[log.index(beginning) :].splitlines()[0]

    def _credentials(self) -> None:
        self._account.heading("8. Which credentials arrived where")
        seen = {
            provider: sorted({credential for one in fake.arrived for credential in one.credentials})
            for provider, fake in zip(Fakes._fields, self._fakes, strict=True)
        }
        self._account.table(
            ("provider", "credential"),
            ((provider, ", ".join(map(masked_value, found)) or "none") for provider, found in seen.items()),
            align="left",
        )
        others = self._zai.arrived + self._local.arrived
        leaked = any(LOGIN in value for one in others for value in one.headers.values())
        expect(not leaked, "the caller's login arrived elsewhere")
        expect(not seen["local"], "the local model was sent a credential")
        expect(seen["zai"] == [ZAI_KEY], "Z.ai was not asked with its own key")
        expect(seen["anthropic"] == [f"Bearer {LOGIN}"], "Anthropic was not asked with the caller's login")
        self._account.done("the caller's login never left for Z.ai, Z.ai's key never for Anthropic")

    def _tokens(self) -> None:
        self._account.heading("9. What the router recorded")
        sent = self._fakes._asdict()
        answered = sum(fake.answered for fake in sent.values())
        by_provider = defaultdict(list)
        for entry in self._recorded(answered):
            by_provider[entry.backend].append(entry)
        self._account.table(
            ("provider", "requests", "input", "output"),
            ((provider, *_sums(found)) for provider, found in sorted(by_provider.items())),
            align="right",
        )
        for provider, fake in sent.items():
            found = sum(entry.output_tokens for entry in by_provider[provider])
            given = (fake.usage.get("output_tokens") or fake.usage["completion_tokens"]) * fake.answered
            expect(found == given, f"{provider} gave {given} output tokens, {found} were recorded")
        self._account.done("every token that the providers reported is on record")

    def _recorded(self, wanted: int) -> list[Entry]:
        """The request log, once it has this many entries."""
        end = time.monotonic() + 2
        while len(found := list(entries(self._router.state, "requests.jsonl"))) < wanted:
            expect(time.monotonic() < end, f"{len(found)} of {wanted} requests are on record")
            time.sleep(0.02)
        return found

    def _arrived(self, answered: Answered, asked: str, provider: str, model: str) -> None:
        came = f"{answered.provider or 'nobody'}/{answered.model} ({answered.status})"
        right = (answered.status, answered.provider, answered.model) == (200, provider, model)
        expect(right, f"{asked} was answered by {came}, not by {provider}/{model}")
        self._account.done(f"{asked} -> {provider}/{model} by rule {answered.rule}, {ms(answered.last)}")


def write_rules(router: RouterProcess, fakes: Fakes, sonnet: str) -> str:
    anthropic, zai, local = (fake.url for fake in fakes)
    text = RULES.format(anthropic=anthropic, zai=zai, local=local, sonnet=sonnet)
    router.rules.write_text(text, encoding="utf-8")
    return text


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise StoryError(otherwise)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _sums(found: list[Entry]) -> Iterator[str]:
    yield str(len(found))
    yield count(sum(entry.input_tokens for entry in found))
    yield count(sum(entry.output_tokens for entry in found))
