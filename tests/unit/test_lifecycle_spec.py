"""What a router is started with, and the arguments and variables that follow from it."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from signalbox.config.fields import Listen
from signalbox.lifecycle.spec import (
    RouterSpec,
    decode,
    detached,
    encode,
    environment,
    listen_of,
    mitmproxy_arguments,
    regular,
    reverse,
)

SPEC = RouterSpec(
    modes=(reverse(Listen("127.0.0.1", 8082)), reverse(Listen("::1", 8083))),
    rules=Path("/home/me/rules.yaml"),
    state=Path("/home/me/state"),
    script=Path("/opt/signalbox/addon/router.py"),
)


def test_the_arguments_name_script_listeners_rules_and_state_before_those_of_the_user():
    assert mitmproxy_arguments(replace(SPEC, arguments=("--set", "block_global=false"))) == [
        "-s", "/opt/signalbox/addon/router.py",
        "--mode", "reverse:https://api.anthropic.com@127.0.0.1:8082",
        "--mode", "reverse:https://api.anthropic.com@::1:8083",
        "--set", "router_rules=/home/me/rules.yaml",
        "--set", "router_state=/home/me/state",
        "--set", "block_global=false",
    ]  # fmt: skip


def test_mitmweb_shows_comments_and_opens_no_browser_from_the_background():
    web = mitmproxy_arguments(replace(SPEC, program="mitmweb"))
    assert "web_columns=comment" in web
    assert "web_open_browser=false" not in web
    assert "web_open_browser=false" in mitmproxy_arguments(
        replace(SPEC, program="mitmweb", log="signalbox.log")
    )


@pytest.mark.parametrize(
    "listen", [Listen("127.0.0.1", 8082), Listen("::1", 1), Listen("0.0.0.0", 65535), Listen("", 8082)]
)
def test_a_mode_says_where_it_listens(listen):
    assert listen_of(reverse(listen)) == listen
    assert listen_of(regular(listen)) == listen


def test_a_mode_without_a_port_does_not_tell():
    assert listen_of("regular") is None
    assert listen_of("reverse:https://api.anthropic.com") is None
    assert listen_of("reverse:https://api.anthropic.com@8082") == Listen("", 8082)


@pytest.mark.parametrize(
    ("arguments", "listen"),
    [
        ((), Listen("127.0.0.1", 8081)),
        (("--web-port", "9000"), Listen("127.0.0.1", 9000)),
        (("--set=web_port=9000", "--web-host", "::1"), Listen("::1", 9000)),
        (("--set", "web_host=::1"), Listen("::1", 8081)),
    ],
)
def test_pages_of_mitmweb_are_where_its_arguments_say(arguments, listen):
    assert replace(SPEC, program="mitmweb", arguments=arguments).web_listener == listen
    assert replace(SPEC, arguments=arguments).web_listener is None


def test_a_file_of_variables_adds_what_the_environment_lacks():
    spec = replace(SPEC, log="signalbox.log")
    added = environment(
        spec, {"ZAI_API_KEY": "of-the-file", "OTHER": "of-the-file"}, {"OTHER": "of-the-shell"}
    )
    assert added == {
        "ZAI_API_KEY": "of-the-file",
        "SIGNALBOX_FAIL_OPEN": "1",
        "SIGNALBOX_BACKGROUND": "1",
    }


def test_in_the_foreground_prompts_are_shown_and_broken_rules_may_end_the_start():
    added = environment(replace(SPEC, fail="closed"), {}, {})
    assert added == {"SIGNALBOX_FAIL_OPEN": "", "SIGNALBOX_BACKGROUND": ""}


def test_a_spec_survives_its_way_to_another_process():
    spec = replace(SPEC, env_file=Path("/home/me/.env"), arguments=("--set", "a=b"), bound=True)
    assert decode(encode(spec), RouterSpec) == spec


@pytest.mark.parametrize(("system", "session"), [("linux", True), ("darwin", True), ("win32", False)])
def test_a_router_in_the_background_leaves_the_terminal_in_the_way_of_its_system(system, session):
    how = detached(system)
    assert how.start_new_session is session
    assert (how.creationflags == 0) is session
