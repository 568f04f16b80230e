"""What `just run` and `just web` understand, and what they refuse before anything is started."""

import socket
import subprocess
import sys

import pytest

from signalbox.cli.start import RefusedError, port_refusal, understood, wanted_ports
from tests.support.router_process import ROOT, clean_environment, free_ports

MODE = "reverse:https://api.anthropic.com@127.0.0.1"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], []),
        (["my.yaml"], ["--set", "router_rules=my.yaml"]),
        (
            ["-q", "examples/glm.yml", "--anticache"],
            ["-q", "--set", "router_rules=examples/glm.yml", "--anticache"],
        ),
        (["--set", "router_rules=a.yaml"], ["--set", "router_rules=a.yaml"]),
        (["--set=router_rules=a.yaml", "-p", "8090"], ["--set=router_rules=a.yaml", "-p", "8090"]),
        (["~m POST"], ["~m POST"]),
    ],
)
def test_a_rules_file_is_one_and_all_else_is_mitmproxys(given, meant):
    assert understood(given) == meant


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a.yaml", "b.yaml"], "one rules file at a time: a.yaml and b.yaml are given"),
        (["a.yaml", "--set", "router_rules=b"], "one rules file at a time: a.yaml and b are given"),
        (["--set", "router_rules=a", "--set=router_rules=b"], "one rules file at a time: a and b are given"),
        (["port=8090"], "port=8090 is no argument of run: write just port=8090 run"),
        (["8090"], "8090 is no argument of run: write just port=8090 run"),
        (["my.yaml", "web_port=9000"], "web_port=9000 is no argument of run: write just web_port=9000 run"),
    ],
)
def test_wrong_argument_is_refused_with_the_right_one(given, words):
    with pytest.raises(RefusedError) as caught:
        understood(given)
    assert str(caught.value) == words


def test_listeners_are_those_of_the_modes_and_the_pages_of_mitmweb():
    modes = [
        "--mode",
        f"{MODE}:8082",
        "--mode=reverse:https://h@8083",
        "-m",
        "regular@[::1]:8084",
        "-m",
        "socks5",
    ]
    assert list(wanted_ports("bin/mitmdump", modes)) == [
        ("port", "127.0.0.1", 8082), ("port", "", 8083), ("port", "::1", 8084),
    ]  # fmt: skip
    assert list(wanted_ports("mitmweb.exe", ["--web-port", "9000"])) == [("web_port", "127.0.0.1", 9000)]
    assert list(wanted_ports("mitmweb", ["--set", "web_host=::1"])) == [("web_port", "::1", 8081)]


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("program", "option", "variable"),
    [("mitmdump", f"--mode={MODE}:{{}}", "port"), ("mitmweb", "--web-port={}", "web_port")],
)
def test_a_port_that_is_taken_is_named_with_its_process_and_another_one(taken, program, option, variable):
    line = port_refusal(program, [option.format(taken)])
    assert line.startswith(f"port {taken} is taken by ")
    assert f"take another: just {variable}=" in line
    assert "\n" not in line
    assert f"={taken} " not in line


def test_free_ports_are_no_reason_to_refuse():
    (port,) = free_ports(1)
    assert port_refusal("mitmdump", ["--mode", f"{MODE}:{port}"]) == ""


def start(tmp_path, *command: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "signalbox.cli.start", *command],
        env=clean_environment(tmp_path, {"PYTHONPATH": str(ROOT / "addon")}),
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.returncode, done.stdout, done.stderr


def test_start_becomes_the_program_it_starts(tmp_path):
    code = "import sys; print(sys.argv[1:]); sys.exit(3)"
    assert start(tmp_path, sys.executable, "-c", code, "my.yaml") == (
        3, "['--set', 'router_rules=my.yaml']\n", "",
    )  # fmt: skip


def test_a_refusal_is_one_line_and_starts_nothing(tmp_path, taken):
    said = start(tmp_path, sys.executable, "-c", "print('started')", "a.yaml", "b.yaml")
    assert said == (2, "", "one rules file at a time: a.yaml and b.yaml are given\n")
    code, out, error = start(tmp_path, sys.executable, "-c", "print('started')", f"--mode={MODE}:{taken}")
    assert (code, out, len(error.splitlines())) == (1, "", 1)
