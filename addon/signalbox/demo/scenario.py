"""The scenario of the demo, step by step. Each step checks what it prints."""

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from signalbox.demo.client import Client, Reply, request_body
from signalbox.demo.fake_providers import PAUSE, FakeProvider
from signalbox.demo.output import Output
from signalbox.demo.process import RouterProcess
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


class ScenarioError(Exception):
    """A step failed; the message says what happened."""


class Fakes(NamedTuple):
    anthropic: FakeProvider
    zai: FakeProvider
    local: FakeProvider


class Scenario:
    def __init__(self, router: RouterProcess, fakes: Fakes, output: Output) -> None:
        self._router = router
        self._fakes = fakes
        self._anthropic, self._zai, self._local = fakes
        self._output = output
        self._client = Client(router.port, LOGIN)

    def run(self) -> None:
        """Raises ScenarioError, or OSError if a connection fails."""
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
        self._output.heading("1. Haiku goes to Z.ai")
        reply = self._client.message(HAIKU, "Is the signal green?")
        self._output.say(reply.text, "green")
        self._check_target(reply, HAIKU, "zai", "glm-4.5-air")

    def _sonnet(self) -> None:
        self._output.heading("2. Sonnet goes to Z.ai too, streamed as it is written")
        self._output.word("  ")
        reply = self._client.stream(SONNET, "Tell me about signal boxes.", self._output.word)
        self._output.word("\n")
        self._check_target(reply, SONNET, "zai", "glm-4.7")
        took = reply.last - reply.first
        expect(took > PAUSE, f"all words came at once, within {took:.3f} s")
        self._output.done(f"first word after {ms(reply.first)}, last after {ms(reply.last)}")

    def _opus(self) -> None:
        self._output.heading("3. Opus goes to Anthropic, on the caller's own login")
        prompt = "And the points?"
        reply = self._client.message(OPUS, prompt)
        self._output.say(reply.text, "green")
        self._check_target(reply, OPUS, "anthropic", OPUS)
        same = self._anthropic.received[-1].body == request_body(OPUS, prompt)
        expect(same, "the body that arrived is not the one that was sent")
        self._output.done("the body arrived byte for byte")

    def _fable(self) -> None:
        self._output.heading("4. Fable goes to a model on this machine, which speaks chat completions")
        self._output.word("  ")
        reply = self._client.stream(FABLE, "Do you speak Anthropic's?", self._output.word)
        self._output.word("\n")
        self._check_target(reply, FABLE, "local", "qwen3-coder")
        path = self._local.received[-1].path
        expect(path == "/v1/chat/completions", f"it was asked at {path}")
        self._output.done("translated both ways, word by word")

    def _count_tokens(self) -> None:
        self._output.heading("5. count_tokens for a model at Z.ai is answered by the router itself")
        before = len(self._zai.received)
        reply = self._client.count_tokens(SONNET, "How many tokens are these?")
        expect(reply.status == 200, f"count_tokens was answered with {reply.status}")
        expect(len(self._zai.received) == before, "Z.ai was asked")
        self._output.done(f"{reply.body['input_tokens']} tokens, estimated; Z.ai was not asked")

    def _live_edit(self) -> None:
        self._output.heading("6. rules.yaml is edited: sonnet shall go to Anthropic now")
        self._output.say('- {match: "*sonnet*", to: anthropic}', "yellow")
        write_rules(self._router, self._fakes, sonnet="anthropic")
        saved = time.monotonic()
        reply = self._client.message(SONNET, "Who answers now?")
        while reply.provider != "anthropic" and time.monotonic() - saved < LIVE_EDIT:
            time.sleep(0.05)
            reply = self._client.message(SONNET, "And now?")
        after = time.monotonic() - saved
        expect(reply.provider == "anthropic", f"{after:.1f} s later sonnet still went to {reply.provider}")
        self._output.say(reply.text, "green")
        self._output.done(f"in force {ms(after)} after the file was saved, without a restart")

    def _failover(self) -> None:
        self._output.heading("7. Z.ai is overloaded: the next target of the rule answers")
        self._zai.overloaded = True
        reply = self._client.message(HAIKU, "Is anybody there?")
        self._zai.overloaded = False
        self._output.say(reply.text, "green")
        self._check_target(reply, HAIKU, "anthropic", HAIKU)
        expect(reply.attempts == "zai:529 anthropic:200", f"the attempts were {reply.attempts}")
        self._output.done(f"attempts: {reply.attempts}; the router's log says:")
        self._output.logged(self._logged("↻ zai 529"))

    def _logged(self, beginning: str) -> str:
        """The line of the router's log that begins with this text after its time."""
        end = time.monotonic() + 2
        while beginning not in (log := self._router.log()):
            expect(time.monotonic() < end, f"the router logged no {beginning}")
            time.sleep(0.02)
        return log[log.index(beginning) :].splitlines()[0]

    def _credentials(self) -> None:
        self._output.heading("8. Which credentials arrived where")
        seen = {
            provider: sorted({credential for one in fake.received for credential in one.credentials})
            for provider, fake in zip(Fakes._fields, self._fakes, strict=True)
        }
        self._output.table(
            ("provider", "credential"),
            ((provider, ", ".join(map(masked_value, found)) or "none") for provider, found in seen.items()),
            align="left",
        )
        others = self._zai.received + self._local.received
        leaked = any(LOGIN in value for one in others for value in one.headers.values())
        expect(not leaked, "the caller's login arrived elsewhere")
        expect(not seen["local"], "the local model was sent a credential")
        expect(seen["zai"] == [ZAI_KEY], "Z.ai was not asked with its own key")
        expect(seen["anthropic"] == [f"Bearer {LOGIN}"], "Anthropic was not asked with the caller's login")
        self._output.done("the caller's login never left for Z.ai, Z.ai's key never for Anthropic")

    def _tokens(self) -> None:
        self._output.heading("9. What the router recorded")
        sent = self._fakes._asdict()
        answered = sum(fake.answered for fake in sent.values())
        by_provider = defaultdict(list)
        for entry in self._recorded(answered):
            by_provider[entry.backend].append(entry)
        self._output.table(
            ("provider", "requests", "input", "output"),
            ((provider, *_sums(found)) for provider, found in sorted(by_provider.items())),
            align="right",
        )
        for provider, fake in sent.items():
            found = sum(entry.output_tokens for entry in by_provider[provider])
            given = (fake.usage.get("output_tokens") or fake.usage["completion_tokens"]) * fake.answered
            expect(found == given, f"{provider} gave {given} output tokens, {found} were recorded")
        self._output.done("every token that the providers reported is on record")

    def _recorded(self, wanted: int) -> list[Entry]:
        """The entries of the request log, once there are `wanted` of them."""
        end = time.monotonic() + 2
        while len(found := list(entries(self._router.state, "requests.jsonl"))) < wanted:
            expect(time.monotonic() < end, f"{len(found)} of {wanted} requests are on record")
            time.sleep(0.02)
        return found

    def _check_target(self, reply: Reply, asked: str, provider: str, model: str) -> None:
        came = f"{reply.provider or 'the router'}/{reply.model} ({reply.status})"
        right = (reply.status, reply.provider, reply.model) == (200, provider, model)
        expect(right, f"{asked} was answered by {came}, not by {provider}/{model}")
        self._output.done(f"{asked} -> {provider}/{model} by rule {reply.rule}, {ms(reply.last)}")


def write_rules(router: RouterProcess, fakes: Fakes, sonnet: str) -> str:
    anthropic, zai, local = (fake.url for fake in fakes)
    text = RULES.format(anthropic=anthropic, zai=zai, local=local, sonnet=sonnet)
    router.rules.write_text(text, encoding="utf-8")
    return text


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ScenarioError(otherwise)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _sums(found: list[Entry]) -> Iterator[str]:
    yield str(len(found))
    yield count(sum(entry.input_tokens for entry in found))
    yield count(sum(entry.output_tokens for entry in found))
