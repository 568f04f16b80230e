"""The demo prints what happened, and fails where a step goes wrong."""

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

from signalbox.demo import scenario
from signalbox.demo.fake_providers import FakeProvider
from signalbox.demo.output import PICTURE_WIDTH, Output
from tests.support.router_process import OPENER, ROOT, clean_environment

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


@pytest.mark.slow
def test_demo_succeeds_within_twenty_seconds_and_writes_its_picture(tmp_path):
    picture = tmp_path / "demo.svg"
    start = time.monotonic()
    done = run_demo(tmp_path, "--svg", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - start < 20
    assert "claude-haiku-4-5" in done.stdout
    svg = picture.read_text(encoding="utf-8")
    assert "claude-haiku-4-5" in svg.replace("&#45;", "-")
    assert not re.search(r"url\(.?http", svg)


@pytest.mark.slow
def test_output_is_plain_in_a_pipe(tmp_path):
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    for told in ("zai/glm-4.5-air", "zai/glm-4.7", "byte for byte", "in force", "on record"):
        assert told in done.stdout
    assert "attempts: zai:529 anthropic:200" in done.stdout
    assert "↻ zai 529 → anthropic: overloaded_error" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= PICTURE_WIDTH
    assert scenario.LOGIN not in done.stdout
    assert scenario.ZAI_KEY not in done.stdout


@pytest.mark.slow
def test_error_says_that_the_router_did_not_start(tmp_path):
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


def test_unmet_expectation_is_an_error():
    with pytest.raises(scenario.ScenarioError, match="haiku went elsewhere"):
        scenario.expect(False, "haiku went elsewhere")


@pytest.mark.parametrize(("reports", "at_start"), [("early", 7), ("late", 0)])
def test_fake_provider_reports_its_input_tokens_at_the_start_or_at_the_end(reports, at_start):
    body = json.dumps({"model": "m", "stream": True}).encode()
    with FakeProvider("two words", USAGE, reports) as provider:
        request = urllib.request.Request(f"{provider.url}/v1/messages", body, {"x-api-key": "zai-fake"})
        with OPENER.open(request, timeout=5) as answer:
            events = [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]
    assert events[0]["message"]["usage"]["input_tokens"] == at_start
    assert events[-2]["usage"] == USAGE
    assert "".join(event["delta"].get("text", "") for event in events if "delta" in event) == "two words"
    assert provider.received[0].credentials == ["zai-fake"]


def test_overloaded_fake_provider_answers_529_as_anthropic():
    with FakeProvider("words", USAGE, "early") as provider:
        provider.overloaded = True
        request = urllib.request.Request(f"{provider.url}/v1/messages", b'{"model": "m"}')
        with pytest.raises(urllib.error.HTTPError) as refused:
            OPENER.open(request, timeout=5)
        with refused.value as answer:
            assert (answer.code, json.load(answer)["error"]["type"]) == (529, "overloaded_error")
    assert (len(provider.received), provider.answered) == (1, 0)


def test_log_line_is_readable_on_an_ascii_terminal(capsys, monkeypatch):
    monkeypatch.setattr("rich.console.Console.encoding", "ascii")
    Output().logged("↻ zai 529")
    assert capsys.readouterr().out == "  ? zai 529\n"


def test_success_is_written_as_ok_on_an_ascii_terminal(capsys, monkeypatch):
    monkeypatch.setattr("rich.console.Console.encoding", "ascii")
    Output().done("it worked")
    assert capsys.readouterr().out == "  ok it worked\n"
