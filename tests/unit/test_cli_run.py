"""The commands about a router, before one is started and of one that runs; routers here are only played."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner, Result

from signalbox.cli.group import signalbox_command
from signalbox.lifecycle.running import claim
from signalbox.lifecycle.spec import LOG, RouterSpec, encode
from tests.support.router_process import free_ports


def run(*arguments: object) -> Result:
    return CliRunner().invoke(signalbox_command, list(map(str, arguments)))


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("")
    return path


@pytest.fixture
def play_router(rules, tmp_path):
    """A router of this state folder that says on `/health` what is given; it is this very process."""

    @contextmanager
    def play(log: str = LOG, **health: object):
        page: dict[str, object] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(page).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        port = server.server_address[1]
        mode = f"reverse:https://api.anthropic.com@127.0.0.1:{port}"
        page |= {
            "status": "healthy",
            "version": "0.0.9",
            "pid": os.getpid(),
            "listeners": [{"host": "127.0.0.1", "port": port, "mode": mode}],
            "rules": {"file": str(rules), "loaded_at": "2026-11-29T07:00:00Z", "error": None},
            "tiers": {
                "haiku": {"model": "glm-4.5-air", "provider": "zai", "uses_oauth": False},
                "opus": {"model": "claude-opus-4-5", "provider": None, "uses_oauth": True},
            },
            "providers": {
                "zai": {"url": "https://api.z.ai/api/anthropic", "available": False, "circuit": "open",
                        "reason": "circuit: open for another 42 s"},
            },
            **health,
        }  # fmt: skip
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        spec = RouterSpec(
            modes=(mode,), rules=rules, state=tmp_path / "state", script=rules.with_name("router.py"), log=log
        )
        try:
            with claim(spec.state, spec, "0.0.9"):
                yield port
        finally:
            server.shutdown()
            thread.join(5)
            server.server_close()

    return play


# run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "8082"], "expected HOST:PORT such as 127.0.0.1:8082, got '8082'"),
        (["--fail", "never"], "'never' is not one of 'open', 'closed'"),
        (["--env", "nowhere"], "'nowhere' does not exist"),
        (["--detatch"], "there is no option --detatch, did you mean --detach?"),
        (["--rules", "a.yaml", "b.yaml"], "one rules file at a time: a.yaml and b.yaml are given"),
        (["port=8090"], "write --listen 127.0.0.1:8090, or just port=8090 run"),
    ],
)
def test_wrong_usage_is_said_with_exit_code_2(arguments, words):
    result = run("run", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_rules_that_are_not_there_are_an_error(tmp_path):
    result = run("run", "--rules", tmp_path / "no.yaml", "--state", tmp_path / "state")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith(f"no.yaml:1: {tmp_path}/no.yaml does not exist: `signalbox init` writes ")
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
def test_a_file_of_variables_counts_for_the_listeners_too(rules, tmp_path, taken):
    rules.write_text("listen: {work: '127.0.0.1:${WORK_PORT}'}\n")
    (tmp_path / "variables").write_text(f"WORK_PORT={taken}\n")
    result = run("run", rules, "--env", tmp_path / "variables", "--state", tmp_path / "state")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"port {taken} is taken by ")


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("detach", [[], ["--replace"]])
def test_a_taken_port_is_named_with_its_process(rules, tmp_path, taken, detach):
    result = run("run", "--listen", f"127.0.0.1:{taken}", rules, "--state", tmp_path / "state", *detach)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith(f"port {taken} is taken by ")
    assert f"(process {os.getpid()})" in result.stderr


@pytest.mark.slow
def test_another_port_is_offered_for_a_taken_one(rules, tmp_path, taken):
    result = run("run", "--listen", f"127.0.0.1:{taken}", rules, "--state", tmp_path / "state")
    assert "end that, or take another: --listen 127.0.0.1:" in result.stderr


def test_a_taken_port_for_the_pages_of_mitmweb_is_said_too(rules, tmp_path, taken):
    (free,) = free_ports(1)
    state = tmp_path / "state"
    result = run(
        "run", "--web", "--web-port", taken, "--listen", f"127.0.0.1:{free}", rules, "--state", state
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(f"port {taken} is taken by ")
    assert ", or just web_port=" in result.stderr


def test_a_second_router_on_the_same_port_names_the_first(play_router, rules, tmp_path):
    with play_router() as port:
        result = run("run", "--listen", f"127.0.0.1:{port}", rules, "--state", tmp_path / "state")
    assert result.exit_code == 1
    assert f"port {port} is taken by a router of {rules}, process {os.getpid()}: --replace" in result.stderr


# the router that runs


def test_status_reports_process_listeners_rules_tiers_and_providers(play_router, rules, tmp_path):
    with play_router() as port:
        result = run("status", "--state", tmp_path / "state")
    assert (result.exit_code, result.stderr) == (0, "")
    first, *lines = result.stdout.splitlines()
    assert first.startswith(f"signalbox 0.0.9, process {os.getpid()}, background, since 20")
    assert lines == [
        "this command is version 0.1.0: signalbox restart starts that",
        "status     healthy",
        f"listener   http://127.0.0.1:{port}  reverse:https://api.anthropic.com",
        f"rules      {rules}",
        "haiku      glm-4.5-air      zai      https://api.z.ai/api/anthropic",
        "opus       claude-opus-4-5  no rule  https://api.anthropic.com",
        "provider   zai: unavailable: circuit: open for another 42 s, circuit open",
    ]


def test_status_as_json_is_one_object(play_router, rules, tmp_path):
    with play_router(status="degraded") as port:
        result = run("status", "--json", "--state", tmp_path / "state")
    shown = json.loads(result.stdout)
    assert (shown["pid"], shown["version"], shown["status"]) == (os.getpid(), "0.0.9", "degraded")
    assert [(one["host"], one["port"]) for one in shown["listeners"]] == [("127.0.0.1", port)]
    assert shown["rules"]["file"] == str(rules)
    assert shown["tiers"]["haiku"] == {
        "model": "glm-4.5-air", "provider": "zai", "url": "https://api.z.ai/api/anthropic",
    }  # fmt: skip
    assert shown["providers"]["zai"]["circuit"] == "open"


@pytest.mark.parametrize(
    ("source", "words"),
    [("last-good", "the rules that were last good"), ("fail-open", "no rules: requests pass on unrouted")],
)
def test_status_says_which_rules_are_in_force_in_place_of_broken_ones(play_router, tmp_path, source, words):
    rules = {"file": "/r.yaml", "loaded_at": "", "error": "r.yaml:1: unknown key", "source": source}
    with play_router(rules=rules):
        result = run("status", "--state", tmp_path / "state")
    assert "           r.yaml:1: unknown key\n" in result.stdout
    assert f"           in force: {words}\n" in result.stdout


def test_a_router_that_does_not_answer_is_shown_by_what_it_was_started_with(play_router, tmp_path):
    with play_router(pid=1) as port:  # something else answers on its port
        result = run("status", "--state", tmp_path / "state")
    assert result.exit_code == 1
    assert "status     does not answer" in result.stdout
    assert result.stderr == f"the router does not answer on http://127.0.0.1:{port}\n"


@pytest.mark.parametrize("command", ["status", "restart"])
def test_without_a_router_the_exit_code_is_1(tmp_path, command):
    result = run(command, "--state", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"No router runs on {tmp_path}. signalbox run --detach starts one.\n"


def test_to_stop_none_is_well(tmp_path):
    result = run("stop", "--state", tmp_path)
    assert (result.exit_code, result.stderr) == (0, f"No router runs on {tmp_path}.\n")


def test_a_router_in_a_terminal_is_not_restarted_from_another(play_router, tmp_path):
    with play_router(log=""):
        result = run("restart", "--state", tmp_path / "state")
    assert result.exit_code == 1
    assert result.stderr == f"process {os.getpid()} runs in the foreground of a terminal: end it there\n"


# what would not start ends nothing


@pytest.fixture
def old_router(rules, tmp_path):
    """The process of a router in the background of this state folder, which is only played."""
    (port,) = free_ports(1)
    spec = RouterSpec(
        modes=(f"reverse:https://api.anthropic.com@127.0.0.1:{port}",),
        rules=rules,
        state=tmp_path / "state",
        script=rules.with_name("router.py"),
        listens_by_rules=True,
        fail="closed",
        log=LOG,
    )
    code = (
        "import sys; from signalbox.lifecycle import running, spec\n"
        "one = spec.decode(sys.argv[1], spec.RouterSpec)\n"
        "with running.claim(one.state, one, '0.0.9'): print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, encode(spec).decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.slow
def test_a_restart_onto_a_taken_port_leaves_the_router_alone(old_router, rules, tmp_path, taken):
    rules.write_text(f"listen: {{work: '127.0.0.1:{taken}'}}\n")
    result = run("restart", "--state", tmp_path / "state")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"port {taken} is taken by ")
    assert old_router.poll() is None


def test_a_restart_with_broken_rules_leaves_a_router_that_fails_closed_alone(old_router, rules, tmp_path):
    rules.write_text("rulez: []\n")
    result = run("restart", "--state", tmp_path / "state")
    error = 'rules.yaml:1: unknown key "rulez", did you mean "rules"? (at $)\n'
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", error)
    assert old_router.poll() is None


def test_no_router_is_replaced_by_one_with_broken_rules(old_router, rules, tmp_path):
    rules.write_text("rulez: []\n")
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    options = ("--detach", "--replace", "--fail", "closed", "--listen", listen, "--state", tmp_path / "state")
    result = run("run", rules, *options)
    assert result.exit_code == 1
    assert result.stderr == 'rules.yaml:1: unknown key "rulez", did you mean "rules"? (at $)\n'
    assert old_router.poll() is None


# logs


def test_logs_are_printed_oldest_first(tmp_path):
    (tmp_path / "signalbox.log").write_text("now\n")
    (tmp_path / "signalbox-2026-11-28.2.log").write_text("yesterday, later\n")
    (tmp_path / "signalbox-2026-11-28.log").write_text("yesterday\n")
    (tmp_path / "requests.jsonl").write_text("{}\n")
    result = run("logs", "--state", tmp_path)
    assert (result.exit_code, result.stdout) == (0, "yesterday\nyesterday, later\nnow\n")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to another process")
def test_logs_are_followed_until_ctrl_c(tmp_path):
    (tmp_path / "signalbox.log").write_text("before\n")
    command = [sys.executable, "-m", "signalbox.cli", "logs", "-f", "--state", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "before\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


def test_without_logs_the_exit_code_is_1(tmp_path):
    result = run("logs", "--state", tmp_path)
    assert (result.exit_code, result.stderr) == (1, f"No router has run in the background on {tmp_path}.\n")


def test_logs_are_deleted_and_nothing_else(tmp_path):
    for name in ("signalbox.log", "signalbox-2026-11-28.log", "signalbox-claude.log", "requests.jsonl"):
        (tmp_path / name).write_text("line\n")
    result = run("logs", "--clean", "--state", tmp_path)
    assert result.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["requests.jsonl"]
    assert len(result.stdout.splitlines()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
def test_the_log_of_a_router_that_runs_is_emptied(play_router, tmp_path):
    with play_router():
        (tmp_path / "state" / "signalbox.log").write_text("line\n")
        run("logs", "--clean", "--state", tmp_path / "state")
        assert (tmp_path / "state" / "signalbox.log").read_text() == ""
