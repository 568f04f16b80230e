"""What `signalbox doctor` finds, and that each finding has a remedy."""

import json
import os
import socket
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signalbox import __version__
from signalbox.claude.settings import read_settings
from signalbox.cli.doctor import doctor_command
from signalbox.config.fields import Listen
from signalbox.config.load import parse
from signalbox.doctor import claude_code, machine, providers
from signalbox.doctor.findings import Check, Finding, Situation
from signalbox.lifecycle.running import Health, RulesState
from signalbox.ports import free_port
from tests.support.answers import error_json, json_answer
from tests.support.fake_provider import Upstream
from tests.support.router_process import ROOT

HERE = Listen("127.0.0.1", 8082)
RULES = """
providers:
  anthropic: {url: "https://api.anthropic.com", auth: client}
  zai: {url: "https://api.z.ai/api/anthropic", key: "${ZAI_API_KEY}"}
rules:
  - {match: "*haiku*", to: [zai/glm-4.5-air, anthropic]}
  - {match: "*", to: anthropic}
"""

type Make = Callable[..., Situation]


@pytest.fixture
def situation(tmp_path: Path) -> Make:
    """Of a home without anything; keyword arguments change it."""

    def make(
        rules: str = RULES,
        running: dict[Listen, Health] | None = None,
        listeners: tuple[Listen, ...] = (HERE,),
        files: dict[str, Any] | None = None,
        **environ: str,
    ) -> Situation:
        for name, content in (files or {}).items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content if isinstance(content, str) else json.dumps(content))
        home, project = tmp_path / "home", tmp_path / "project"
        return Situation(
            rules=parse(rules, file=tmp_path / "rules.yaml", environ=environ),
            rules_file=tmp_path / "rules.yaml",
            state=tmp_path / "state",
            environ={"PATH": str(tmp_path / "bin"), **environ},
            home=home,
            project=project,
            settings=read_settings(environ, project, home, "linux-for-tests"),
            listeners=listeners,
            running=running or {},
            platform="linux-for-tests",
        )

    return make


def told(found: Any) -> list[str]:
    """State and message of each finding, all of which have a remedy but the good ones."""
    findings: list[Finding] = list(found)
    assert all(bool(one.remedy) == (one.state != "ok") for one in findings)
    return [f"{one.state}: {one.message}" for one in findings]


def only(found: Any) -> str:
    (line,) = told(found)
    return line


# the machine


def health(**changes: Any) -> Health:
    rules = RulesState(changes.pop("file", "/r/rules.yaml"), "", changes.pop("error", None))
    return Health(
        **{"status": "healthy", "version": __version__, "pid": 1, "listeners": (), "rules": rules} | changes
    )


def test_a_free_port_is_well_and_one_of_another_program_is_not(situation):
    free = free_port()
    assert only(machine.port(situation(listeners=(Listen("127.0.0.1", free),)))).startswith("ok: ")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = only(machine.port(situation(listeners=(Listen("127.0.0.1", port),))))
    assert line.startswith(f"fail: 127.0.0.1:{port}: port {port} is taken by ")


def test_a_running_router_is_reported_with_what_is_odd_about_it(situation):
    own = str(situation().rules_file)
    assert only(machine.port(situation(running={HERE: health(file=own)}))).startswith("ok: a router answers")
    old = machine.port(situation(running={HERE: health(file=own, version="0.0.1")}))
    assert only(old).startswith("warn: a router answers at 127.0.0.1:8082, version 0.0.1")
    other = machine.port(situation(running={HERE: health(file="/other.yaml")}))
    assert "with other rules: /other.yaml" in only(other)
    broken = machine.port(situation(running={HERE: health(file=own, error="rules.yaml:3: bad")}))
    assert told(broken)[1] == (
        "fail: the router at 127.0.0.1:8082 uses the rules of before the last edit: rules.yaml:3: bad"
    )


def certificate(days: float) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority for tests")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(("days", "state"), [(400, "ok"), (10, "warn"), (-1, "fail")])
def test_a_certificate_that_expires_is_reported(situation, days, state):
    files = {
        "home/.mitmproxy/mitmproxy-ca-cert.pem": certificate(days),
        "home/.mitmproxy/mitmproxy-ca.pem": "fake key",
    }
    here = situation(files=files)
    (here.home / ".mitmproxy/mitmproxy-ca.pem").chmod(0o600)
    assert only(machine.ca(here)).startswith(f"{state}: ")


def test_a_certificate_that_is_none_and_a_key_open_to_all_are_reported(situation):
    files = {"home/.mitmproxy/mitmproxy-ca-cert.pem": "x", "home/.mitmproxy/mitmproxy-ca.pem": "fake key"}
    assert only(machine.ca(situation(files=files))).endswith(
        "mitmproxy-ca-cert.pem cannot be read: ValueError"
    )
    files["home/.mitmproxy/mitmproxy-ca-cert.pem"] = certificate(400)
    here = situation(files=files)
    (here.home / ".mitmproxy/mitmproxy-ca.pem").chmod(0o644)
    assert told(machine.ca(here))[1].endswith("with which certificates are signed, can be read by others")


def test_files_from_the_future_tell_of_a_wrong_clock(situation):
    here = situation(files={"state/ledger.sqlite": "x"})
    assert only(machine.clock(here)).startswith("ok: ")
    ahead = datetime.now(UTC).timestamp() + 7200
    os.utime(here.state / "ledger.sqlite", (ahead, ahead))
    assert only(machine.clock(here)).endswith("are from 2.0 hours ahead: the clock was set back")


def test_free_disk_space_is_that_of_the_nearest_folder_that_exists(situation, tmp_path):
    assert f"GB are free at {tmp_path}" in only(machine.disk(situation()))


def test_what_others_may_read_is_reported(situation):
    here = situation(files={"state/x": "", ".env": "ZAI_API_KEY=fake"})
    here.state.chmod(0o755)
    (here.rules_file.parent / ".env").chmod(0o644)
    lines = told(machine.permissions(here))
    assert lines[0] == f"warn: others may look into {here.state}, where sessions and costs are recorded"
    assert lines[1] == f"warn: others may read {here.rules_file.parent / '.env'}, which holds keys"
    here.state.chmod(0o700)
    (here.rules_file.parent / ".env").chmod(0o600)
    assert only(machine.permissions(here)).startswith("ok: ")


# keys and providers


def test_a_key_that_is_not_set_fails_only_where_a_rule_has_no_other_target(situation):
    line = only(providers.keys(situation()))
    assert line == "warn: zai cannot be asked: ZAI_API_KEY is not set"
    alone = RULES.replace("[zai/glm-4.5-air, anthropic]", "zai/glm-4.5-air")
    (finding,) = providers.keys(situation(alone))
    assert (finding.state, finding.remedy.startswith("set ZAI_API_KEY in the environment")) == ("fail", True)
    assert finding.message.endswith("; rule #1 has no other target")
    assert only(providers.keys(situation(ZAI_API_KEY="fake"))) == "ok: every key is there (zai)"


def test_a_provider_on_this_machine_that_does_not_run_is_reported(situation):
    port = free_port()
    text = RULES.replace("https://api.z.ai/api/anthropic", f"http://127.0.0.1:{port}")
    lines = told(providers.providers(situation(text)))
    assert lines[0] == "ok: anthropic is at https://api.anthropic.com"
    assert lines[1] == f"warn: zai is at http://127.0.0.1:{port}, and nothing listens at 127.0.0.1:{port}"


def test_what_a_running_router_knows_of_providers_is_reported(situation):
    seen = {"zai": {"circuit": "open", "key_valid": False}, "gone": {"circuit": "open"}}
    here = situation(running={HERE: health(providers=seen)}, ZAI_API_KEY="fake")
    assert told(providers.keys(here))[0] == "fail: zai has refused its key, as the router that runs saw"
    assert told(providers.providers(here))[-1].startswith("warn: zai has failed so often")


def test_online_each_provider_is_asked_with_its_own_key(situation):
    with Upstream() as home, Upstream() as zai:
        home.answer(error_json(401, "authentication_error"))
        zai.answer(
            json_answer({"data": [{"id": "glm-4.7"}]}, headers=(("Date", "Sun, 01 Nov 2026 00:00:00 GMT"),))
        )
        text = RULES.replace("https://api.z.ai/api/anthropic", zai.url)
        asked = providers.ask(
            situation(text.replace("https://api.anthropic.com", home.url), ZAI_API_KEY="fake-key")
        )
        assert home.requests[0].header("authorization") is None
        assert home.requests[0].header("x-api-key") is None
        assert zai.requests[0].header("x-api-key") == "fake-key"
    lines = told(one.finding for one in asked)
    assert lines[0].startswith("ok: anthropic answers (401), after ")
    assert lines[1].startswith("ok: zai answers, with 1 models, after ")
    assert only(providers.compared_clock(asked)).endswith(" s ahead of that of zai")


def test_online_a_refused_key_and_a_provider_that_is_gone_are_failures(situation):
    with Upstream() as zai:
        zai.answer(error_json(403, "permission_error"))
        text = RULES.replace("https://api.z.ai/api/anthropic", zai.url)
        text = text.replace("https://api.anthropic.com", f"http://127.0.0.1:{free_port()}")
        asked = providers.ask(situation(text, ZAI_API_KEY="fake-key"))
    lines = told(one.finding for one in asked)
    assert "it could not be reached" in lines[0]
    assert lines[1].startswith("fail: zai refuses its key (403)")


# Claude Code


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str], None]:
    def install(says: str) -> None:
        program = tmp_path / "bin" / "claude"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return install


def test_a_missing_or_old_claude_code_is_reported(situation, installed):
    here = situation(ANTHROPIC_API_KEY="fake")
    assert only(claude_code.claude(here)) == "warn: Claude Code is not on the PATH"
    installed("2.1.328 (Claude Code)")
    assert only(claude_code.claude(here)).startswith("ok: Claude Code 2.1.328 at ")
    installed("2.1.200 (Claude Code)")
    assert "is older than 2.1.243" in only(claude_code.claude(here))
    installed("no version")
    assert only(claude_code.claude(here)).endswith("does not tell its version")


def test_a_login_that_rules_need_and_claude_code_has_not_is_reported(situation, installed):
    installed("2.1.328 (Claude Code)")
    assert told(claude_code.claude(situation()))[1] == (
        "warn: Claude Code has neither login nor key, which anthropic (auth: client) needs"
    )
    with_login = situation(files={"home/.claude/.credentials.json": "{}"})
    assert len(told(claude_code.claude(with_login))) == 1


def test_nothing_of_note_in_settings_is_well(situation):
    assert only(claude_code.settings(situation())).startswith("ok: nothing in settings")


@pytest.mark.parametrize(
    "file",
    ["home/.claude/settings.json", "project/.claude/settings.json", "project/.claude/settings.local.json"],
)
def test_a_base_url_that_another_tool_has_left_is_found_in_any_settings_file(situation, tmp_path, file):
    port = free_port()
    url = f"http://user:fake-password@127.0.0.1:{port}/path?key=fake-key"
    (finding,) = claude_code.settings(situation(files={file: {"env": {"ANTHROPIC_BASE_URL": url}}}))
    assert finding.state == "fail"
    assert (
        f"ANTHROPIC_BASE_URL in {tmp_path / file} is 127.0.0.1:{port}, where nothing listens"
        in finding.message
    )
    assert finding.remedy == f'take ANTHROPIC_BASE_URL out of "env" in {tmp_path / file}'
    assert "fake" not in finding.message + finding.remedy


def test_one_in_the_environment_and_in_a_shell_profile_is_found_too(situation, tmp_path):
    profile = "# mine\nexport ANTHROPIC_BASE_URL='https://gateway.example.com/anthropic'\n"
    files = {
        "home/.zshrc": profile,
        "home/.config/fish/config.fish": "set -gx ANTHROPIC_BASE_URL http://other.example",
    }
    found = list(claude_code.settings(situation(files=files, ANTHROPIC_BASE_URL="https://third.example")))
    assert [one.message.partition(" is ")[0] for one in found] == [
        "ANTHROPIC_BASE_URL in the environment",
        f"ANTHROPIC_BASE_URL in {tmp_path / 'home/.zshrc'}:2",
        f"ANTHROPIC_BASE_URL in {tmp_path / 'home/.config/fish/config.fish'}:1",
    ]
    assert {one.state for one in found} == {"warn"}
    assert found[1].remedy == f"take line 2 out of {tmp_path / 'home/.zshrc'}"


def test_one_that_leads_to_this_router_fails_only_while_none_runs(situation):
    environ = {"ANTHROPIC_BASE_URL": "http://localhost:8082/"}
    assert "where no router runs: a plain `claude` fails" in only(claude_code.settings(situation(**environ)))
    assert only(claude_code.settings(situation(running={HERE: health()}, **environ))).startswith("ok: ")


def test_the_default_model_of_another_provider_is_reported(situation):
    files = {
        "home/.claude/settings.json": {
            "model": "glm-4.7",
            "env": {"ANTHROPIC_DEFAULT_HAIKU_MODEL": "glm-4.5-air"},
        }
    }
    lines = told(claude_code.settings(situation(files=files)))
    assert lines[0].startswith("warn: glm-4.7 in ")
    assert "ANTHROPIC_DEFAULT_HAIKU_MODEL in " in lines[1]
    own = {"home/.claude/settings.json": {"model": "opus[1m]"}}
    assert only(claude_code.settings(situation(files=own))).startswith("ok: ")


def test_a_broken_settings_file_another_cloud_and_a_key_beside_a_login_are_reported(situation):
    files = {"project/.claude/settings.json": "{", "home/.claude/.credentials.json": "{}"}
    here = situation(files=files, ANTHROPIC_AUTH_TOKEN="fake-token", CLAUDE_CODE_USE_BEDROCK="1")
    lines = told(claude_code.settings(here))
    assert lines[0].endswith("settings.json cannot be read as JSON: Claude Code ignores it")
    assert "ANTHROPIC_AUTH_TOKEN in the environment is used in the place of Claude Code's login" in lines[1]
    assert "has Claude Code ask Amazon Bedrock" in lines[2]
    assert "fake-token" not in "".join(lines)


def test_gates_of_a_base_url(situation):
    environ = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8082", "HTTP_PROXY": "http://proxy.example:3128"}
    lines = told(claude_code.gates(situation(**environ)))
    assert lines[0].startswith("ok: base-url 127.0.0.1:8082: Remote Control ✗")
    assert (
        lines[1] == "fail: HTTP_PROXY in the environment is a proxy that Claude Code asks for the router, too"
    )
    assert "no tool search without ENABLE_TOOL_SEARCH=true" in lines[2]
    assert len(lines) == 4
    well = {
        "ENABLE_TOOL_SEARCH": "true",
        "CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING": "1",
        "NO_PROXY": "127.0.0.1",
    }
    assert len(told(claude_code.gates(situation(**environ, **well)))) == 1


def test_gates_of_interception(situation, tmp_path):
    environ = {"HTTPS_PROXY": "http://127.0.0.1:8082", "NO_PROXY": "example.org,.anthropic.com"}
    lines = told(claude_code.gates(situation(**environ)))
    assert lines[0].startswith("ok: intercept by 127.0.0.1:8082: Remote Control ✓")
    assert lines[1] == "fail: NO_PROXY names .anthropic.com: requests go past the router"
    assert lines[2].startswith("fail: NODE_EXTRA_CA_CERTS is not set")
    gone = str(tmp_path / "gone.pem")
    assert (
        f"names {gone}, which is not there"
        in told(claude_code.gates(situation(**environ, NODE_EXTRA_CA_CERTS=gone)))[2]
    )


def test_a_bundle_without_the_routers_certificate_is_reported(situation, tmp_path):
    files = {
        "home/.mitmproxy/mitmproxy-ca-cert.pem": certificate(400),
        "home/.mitmproxy/mitmproxy-ca.pem": "fake key",
        "other.pem": certificate(400),
    }
    environ = {"HTTPS_PROXY": "http://127.0.0.1:8082", "NODE_EXTRA_CA_CERTS": str(tmp_path / "other.pem")}
    here = situation(files=files, **environ)
    assert "does not hold" in told(claude_code.gates(here))[1]
    own = (tmp_path / "home/.mitmproxy/mitmproxy-ca-cert.pem").read_text()
    assert len(told(claude_code.gates(situation(files={"other.pem": f"another one\n{own}"}, **environ)))) == 1


@pytest.mark.parametrize("way", [{}, {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8082"}])
def test_gates_say_nothing_of_the_router_where_another_cloud_is_asked(situation, way):
    line = only(claude_code.gates(situation(CLAUDE_CODE_USE_BEDROCK="1", **way)))
    assert line == "warn: not looked at, since Claude Code asks Amazon Bedrock"


def test_gates_without_a_way_to_the_router_say_what_signalbox_claude_would_do(situation):
    assert "`signalbox claude` does (intercept: " in only(claude_code.gates(situation()))
    asks = RULES.replace('match: "*haiku*"', "match: {class: compaction}")
    line = told(claude_code.gates(situation(asks)))[1]
    assert line.endswith("which a plain `claude` tells with CLAUDE_CODE_GATEWAY_HINT_HEADERS=1 only")


# the command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs it in an empty home, with these rules."""
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CLAUDE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)

    def call(rules: str, *arguments: str) -> Any:
        text = rules + f"listen: {{here: '127.0.0.1:{free_port()}'}}\n"
        (tmp_path / "rules.yaml").write_text(text)
        options = ["--rules", str(tmp_path / "rules.yaml"), "--state", str(tmp_path / "state")]
        return CliRunner().invoke(doctor_command, [*options, *arguments])

    return call


def test_the_command_goes_through_all_checks_and_changes_nothing(run, tmp_path):
    done = run(RULES, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert {one["check"] for one in found} == set(get_args(Check.__value__))
    assert all(set(one) == {"check", "state", "message", "remedy"} for one in found)
    assert [str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")] == ["home", "rules.yaml"]


def test_errors_in_the_rules_are_failures_and_the_other_checks_go_on(run):
    done = run(RULES.replace("auth: client", "auth: cleint"), "--json")
    assert done.exit_code == 1
    found = json.loads(done.output)
    (error,) = [one for one in found if one["check"] == "rules"]
    assert error["state"] == "fail"
    assert error["message"].startswith("rules.yaml:3: ")
    assert {one["check"] for one in found} == set(get_args(Check.__value__))


def test_rules_that_are_not_there_are_a_failure_with_its_remedy(run, tmp_path):
    done = run(RULES, "--json", "--rules", str(tmp_path / "none.yaml"))
    (error,) = [one for one in json.loads(done.output) if one["check"] == "rules"]
    assert (error["state"], error["message"]) == ("fail", f"{tmp_path}/none.yaml does not exist")
    assert error["remedy"] == "`signalbox init` writes one, or name another with --rules"


def test_people_get_a_line_each_with_the_remedy_below(run):
    lines = run(RULES).output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("warn keys"))
    assert lines[at] == "warn keys        zai cannot be asked: ZAI_API_KEY is not set"
    assert lines[at + 1].strip().startswith("→ set ZAI_API_KEY in the environment, or in ")
    assert lines[-1].startswith("nothing to mend, ")


def test_the_docs_have_a_row_for_each_check():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    for check in get_args(Check.__value__):
        assert f"\n| `{check}` | " in page
