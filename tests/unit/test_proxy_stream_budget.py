"""What counts against a budget: also what a client left, and what failed, had used."""

import threading

import pytest

from tests.support.answers import USAGE, message_events, message_json, sse, text_block
from tests.support.playbook import eventually, played

TOTAL = sum(USAGE.values())
EVENTS = message_events("glm-4.7", [text_block("")], ["half", "whole"], USAGE, USAGE)
FAILED = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n'


@pytest.mark.parametrize(
    ("answer", "leaves", "attempts"),
    [
        (sse(*EVENTS[:1], FAILED), False, "zai:stream_error anthropic:200"),
        (message_json("glm-4.7"), False, "zai:200"),
        (sse(*EVENTS[:4], threading.Event()), True, "zai:cancelled"),
    ],
    ids=["what failed", "what came", "what a client left"],
)
def test_all_that_was_used_counts(tmp_path, answer, leaves, attempts):
    rules = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client}}
  zai: {{url: "http://zai.invalid", key: k, budget: {{tokens: {TOTAL}, per: month, at: 90}}}}
rules: [{{match: "*", to: [zai/glm-4.7, anthropic]}}]
"""
    with played(tmp_path, rules) as router:
        router.provider("home")
        router.provider("zai").answer(answer)
        play = router.connect()
        play.ask("opus", stream=True)
        if leaves:
            play.client_leaves()
        assert play.records(1)[0]["attempts"] == attempts
        eventually(lambda: not router.health("zai")["available"], lambda: str(router.health("zai")))
