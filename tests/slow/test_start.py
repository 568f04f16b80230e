"""What a start says: where to point Claude Code, and what is wrong with the options."""

import re
import socket

import pytest

from tests.support.router_process import Router, free_ports

ROUTER = Router
pytestmark = pytest.mark.slow

UPSTREAM = "https://api.anthropic.com"


def test_a_start_says_where_to_point_claude_code_in_lines_of_one_form(start_router):
    (port,) = free_ports(1)
    router = start_router(UPSTREAM, options=["--mode", f"reverse:{UPSTREAM}@{port}"])
    for one in (router.ports[0], port):
        router.wait_log(rf"point Claude Code here: ANTHROPIC_BASE_URL=http://127\.0\.0\.1:{one} claude\n")
    router.rules("modle: 1\n")
    router.wait_log("the rules loaded at [0-9:]{8} stay in force")
    lines = router.log().splitlines()
    assert [line for line in lines if not re.match(r"\[\d\d:\d\d:\d\d\.\d{3}\] \S", line)] == []


def test_a_forward_proxy_says_what_its_clients_need(start_router):
    router = start_router()
    router.wait_log(
        rf"point Claude Code here: HTTPS_PROXY=http://127\.0\.0\.1:{router.ports[0]} "
        rf"NODE_EXTRA_CA_CERTS={router.confdir}/mitmproxy-ca-cert\.pem claude\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--set", "router_rule=x"],
            "--set router_rule: there is no such option, did you mean router_rules?",
        ),
        (["--set", "rules=x"], "--set rules: there is no such option, did you mean router_rules?"),
        (["--set", "router_rules=x"], "--set router_rules is given 2 times"),
        (["my.yaml"], "my.yaml would be a filter of flows here: write --set router_rules=my.yaml"),
    ],
)
def test_options_that_mitmproxy_would_take_without_a_word_end_the_start(tmp_path, options, words):
    code, said = Router.start_fails(tmp_path, UPSTREAM, options=options)
    assert code == 1
    assert f"] {words}\n" in said
    assert "Traceback" not in said


def test_a_port_of_another_process_is_named_with_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, said = Router.start_fails(tmp_path, options=["--mode", f"regular@127.0.0.1:{port}"])
    assert code == 1
    assert re.search(rf"port {port} is taken by .+: end that, or take another in --mode\n", said)
