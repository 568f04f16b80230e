"""The demo: it tells what happened, and fails where something else did."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from signalbox.demo import story
from signalbox.demo.account import PICTURE_WIDTH, Account
from signalbox.demo.providers import FakeProvider
from tests.running import OPENER, ROOT, clean_environment

USAGE = {"input_tokens": 7, "output_tokens": 3}


def run_demo(home, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(home, {"PYTHONPATH": str(ROOT / "addon"), "PYTHONUTF8": "1"})
    return subprocess.run(
        [sys.executable, "-m", "signalbox.cli", "demo", *arguments],
        env={**environment, **changes},
        cwd=home,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )


def test_the_demo_succeeds_within_twenty_seconds_and_draws_its_picture(tmp_path):
    picture = tmp_path / "demo.svg"
    start = time.monotonic()
    done = run_demo(tmp_path, "--svg", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - start < 20
    assert "claude-haiku-4-5" in done.stdout
    svg = picture.read_text(encoding="utf-8")
    assert "claude-haiku-4-5" in svg.replace("&#45;", "-")
    assert not re.search(r"url\(.?http", svg)


def test_in_a_pipe_its_account_is_plain(tmp_path):
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    for told in ("zai/glm-4.5-air", "zai/glm-4.7", "byte for byte", "in force", "on record"):
        assert told in done.stdout
    assert "attempts: zai:529 anthropic:200" in done.stdout
    assert "↻ zai 529 → anthropic: overloaded_error" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= PICTURE_WIDTH
    assert story.LOGIN not in done.stdout
    assert story.ZAI_KEY not in done.stdout


def test_without_a_router_it_says_what_failed(tmp_path):
    done = run_demo(tmp_path, PYTHONPATH=str(addon_without_router(tmp_path)))
    assert done.returncode == 1
    assert "Error: the demo failed: the router ended with exit code 1" in done.stderr
    assert "Traceback" not in done.stderr.split("The router said:")[0]


def addon_without_router(folder: Path) -> Path:
    """A copy of the package without what mitmproxy loads beside it."""
    addon = folder / "addon"
    shutil.copytree(
        ROOT / "addon/signalbox", addon / "signalbox", ignore=shutil.ignore_patterns("__pycache__")
    )
    return addon


def test_what_does_not_happen_as_told_is_an_error():
    with pytest.raises(story.StoryError, match="haiku went elsewhere"):
        story.expect(False, "haiku went elsewhere")


@pytest.mark.parametrize(("reports", "at_start"), [("early", 7), ("late", 0)])
def test_fake_providers_report_their_input_at_the_start_or_at_the_end(reports, at_start):
    body = json.dumps({"model": "m", "stream": True}).encode()
    with FakeProvider("two words", USAGE, reports) as provider:
        request = urllib.request.Request(f"{provider.url}/v1/messages", body, {"x-api-key": "zai-fake"})
        with OPENER.open(request, timeout=5) as answer:
            events = [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]
    assert events[0]["message"]["usage"]["input_tokens"] == at_start
    assert events[-2]["usage"] == USAGE
    assert "".join(event["delta"].get("text", "") for event in events if "delta" in event) == "two words"
    assert provider.arrived[0].credentials == ["zai-fake"]


def test_an_overloaded_fake_provider_refuses_as_anthropic_would():
    with FakeProvider("words", USAGE, "early") as provider:
        provider.overloaded = True
        request = urllib.request.Request(f"{provider.url}/v1/messages", b'{"model": "m"}')
        with pytest.raises(urllib.error.HTTPError) as refused:
            OPENER.open(request, timeout=5)
        with refused.value as answer:
            assert (answer.code, json.load(answer)["error"]["type"]) == (529, "overloaded_error")
    assert (len(provider.arrived), provider.answered) == (1, 0)


def test_a_terminal_that_knows_no_arrows_shows_the_log_without_them(capsys, monkeypatch):
    monkeypatch.setattr("rich.console.Console.encoding", "ascii")
    Account().logged("↻ zai 529")
    assert capsys.readouterr().out == "  ? zai 529\n"


def test_on_a_terminal_that_knows_no_tick_it_writes_ok(capsys, monkeypatch):
    monkeypatch.setattr("rich.console.Console.encoding", "ascii")
    Account().done("it worked")
    assert capsys.readouterr().out == "  ok it worked\n"
