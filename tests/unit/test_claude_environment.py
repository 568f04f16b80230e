"""The environment of Claude Code behind the router."""

from pathlib import Path

import pytest

from signalbox.claude.environment import (
    ChildEnvironment,
    child_environment,
    default_via,
    encoded_path,
    features,
    leading_back,
    names_client,
    other_clouds,
    router_environment,
    trusted_files,
    with_project,
)
from signalbox.claude.settings import ClaudeSettings, SettingsFile

URL = "http://127.0.0.1:8082"
CA = Path("/state/mitmproxy/mitmproxy-ca-cert.pem")
PROJECT = Path("/home/ann/shop")
USER = Path("/home/ann/.claude/settings.json")
MANAGED = Path("/etc/claude-code/managed-settings.json")


def settings(**env: str) -> ClaudeSettings:
    """The user's own, with these variables."""
    return ClaudeSettings([SettingsFile(USER, {"env": env})])


NONE = ClaudeSettings()


def intercept(shell: dict[str, str], found: ClaudeSettings = NONE) -> ChildEnvironment:
    return child_environment("intercept", URL, CA, PROJECT, shell, found)


def base_url(shell: dict[str, str], found: ClaudeSettings = NONE) -> ChildEnvironment:
    return child_environment("base-url", URL, None, PROJECT, shell, found)


def test_intercept_makes_the_router_the_proxy_and_takes_the_base_url_out():
    shell = {"PATH": "/bin", "ANTHROPIC_BASE_URL": "http://old:1", "ANTHROPIC_API_KEY": "k"}
    assert intercept(shell).over(shell) == {
        "PATH": "/bin",
        "ANTHROPIC_API_KEY": "k",
        "HTTPS_PROXY": URL,
        "NODE_EXTRA_CA_CERTS": str(CA),
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
        "ANTHROPIC_CUSTOM_HEADERS": "x-signalbox-project: /home/ann/shop",
    }


def test_base_url_also_turns_on_what_a_base_url_turns_off():
    assert base_url({}).over({}) == {
        "ANTHROPIC_BASE_URL": URL,
        "ENABLE_TOOL_SEARCH": "true",
        "CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING": "1",
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
        "ANTHROPIC_CUSTOM_HEADERS": "x-signalbox-project: /home/ann/shop",
    }


def test_variables_of_the_user_win():
    shell = {"ENABLE_TOOL_SEARCH": "false", "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "0"}
    found = settings(CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING="0")
    assert base_url(shell, found).changes.keys() == {"ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"}


def test_headers_of_the_user_stay():
    shell = {"ANTHROPIC_CUSTOM_HEADERS": "X-Team: a\nx-other: b\n"}
    added = intercept(shell).changes["ANTHROPIC_CUSTOM_HEADERS"]
    assert added == "X-Team: a\nx-other: b\nx-signalbox-project: /home/ann/shop"


def test_a_project_that_the_user_names_counts():
    headers = "X-Signalbox-Project : elsewhere"
    assert with_project(headers, PROJECT) == headers


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/home/ann/a b/~x_y-1.2", "/home/ann/a b/~x_y-1.2"),
        (r"C:\Users\ann", r"C:\Users\ann"),
        ("/home/jürgen/日本", "/home/j%C3%BCrgen/%E6%97%A5%E6%9C%AC"),
        ("/a\nb: c\r", "/a%0Ab: c%0D"),
        ("/100%", "/100%25"),
        ("/end ", "/end%20"),
        ("/no\udcfftext", "/no%FFtext"),
    ],
)
def test_a_folder_is_the_value_of_a_header(path, value):
    assert encoded_path(Path(path)) == value


# proxies


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("localhost,api.anthropic.com,.corp", "localhost,.corp"),
        (".anthropic.com internal", "internal"),
        ("anthropic.com:443", None),
        ("*.anthropic.com,10.0.0.0/8", "10.0.0.0/8"),
        ("*", None),
        ("com", None),
    ],
)
def test_entries_that_lead_past_the_router_are_taken_out_and_named(written, left):
    found = intercept({"NO_PROXY": written, "no_proxy": written})
    assert found.changes["NO_PROXY"] == found.changes["no_proxy"] == left
    assert found.remarks[0].startswith("NO_PROXY is without ")


@pytest.mark.parametrize("written", ["localhost", "notanthropic.com", "my.api.anthropic.com,openai.com:443"])
def test_other_entries_stay(written):
    found = intercept({"NO_PROXY": written})
    assert "NO_PROXY" not in found.changes
    assert found.remarks == ()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_the_users_proxy_becomes_that_of_the_router(name):
    shell = {name: "http://ann:secret-of-ann@proxy:3128"}
    child = intercept(shell)
    assert child.over(shell)["HTTPS_PROXY"] == URL
    assert {"ALL_PROXY", "all_proxy"}.isdisjoint(child.over(shell))
    assert child.over(shell).get("https_proxy", URL) == URL
    assert child.remarks == ("requests leave through your proxy, http://proxy:3128",)
    assert router_environment(shell, NONE, URL)[name] == shell[name]


def test_a_proxy_for_everything_is_one_for_https_too():
    found = router_environment({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "x"}, NONE, URL)
    assert found == {"ALL_PROXY": "http://proxy:1", "HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "x"}
    assert "HTTPS_PROXY" not in router_environment({"ALL_PROXY": "socks5://proxy:1"}, NONE, URL)


def test_a_proxy_of_the_settings_is_the_routers_too():
    found = settings(HTTPS_PROXY="http://proxy:1", OTHER="x")
    assert router_environment({"HOME": "/h"}, found, URL) == {"HOME": "/h", "HTTPS_PROXY": "http://proxy:1"}


@pytest.mark.parametrize("left", [URL, "http://localhost:8082/", "127.0.0.1:8082", "http://[::1]:8082"])
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_is_this_router_itself_is_left_out(name, left):
    shell = {"HOME": "/h", name: left}
    assert leading_back(shell, URL) == [name]
    assert router_environment(shell, NONE, URL) == {"HOME": "/h"}
    assert router_environment({"HOME": "/h"}, settings(**{name: left}), URL) == {"HOME": "/h"}
    assert intercept(shell).remarks == ()
    assert name not in base_url(shell).over(shell)


def test_a_proxy_on_another_port_of_this_machine_stays():
    shell = {"HTTPS_PROXY": "http://127.0.0.1:8083", "HTTP_PROXY": "http://proxy:8082"}
    assert router_environment(shell, NONE, URL) == shell
    assert leading_back({"HTTPS_PROXY": "http://[", "HTTP_PROXY": ""}, URL) == []


def test_with_a_base_url_no_proxy_is_asked_for_this_machine():
    found = base_url({"HTTPS_PROXY": "http://proxy:1", "no_proxy": "corp, 127.0.0.1"})
    assert found.changes["NO_PROXY"] == found.changes["no_proxy"] == "corp,127.0.0.1,localhost,::1"
    assert "HTTPS_PROXY" not in found.changes
    for shell in ({}, {"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "*"}):
        assert "NO_PROXY" not in base_url(shell).changes


def test_a_session_within_a_session_has_nothing_to_say_about_the_router():
    shell = intercept({}).over({})
    assert intercept(shell).remarks == ()
    assert intercept(shell).changes == {}


# settings files


def test_what_a_settings_file_would_override_is_named_for_the_command_line():
    shell = {"ANTHROPIC_CUSTOM_HEADERS": "x-shell: 1"}
    found = settings(
        ANTHROPIC_BASE_URL="http://old:1", HTTPS_PROXY="http://proxy:1", ANTHROPIC_CUSTOM_HEADERS="x-a: 1"
    )
    assert intercept(shell, found).overrides == {
        "ANTHROPIC_BASE_URL": "",
        "HTTPS_PROXY": URL,
        "ANTHROPIC_CUSTOM_HEADERS": "x-a: 1\nx-signalbox-project: /home/ann/shop",
    }
    assert base_url(shell, found).overrides["ANTHROPIC_BASE_URL"] == URL
    assert intercept(shell, settings(OTHER="1")).overrides == {}


def test_a_base_url_that_is_not_used_is_named_with_its_file_and_without_its_secrets():
    (remark,) = intercept({}, settings(ANTHROPIC_BASE_URL="http://me:secret-of-me@old:1/x")).remarks
    assert remark == f"ANTHROPIC_BASE_URL in {USER} is not used: http://old:1/x"
    (remark,) = base_url({"ANTHROPIC_BASE_URL": "http://old:1"}).remarks
    assert remark == "ANTHROPIC_BASE_URL of your shell is not used: http://old:1"
    assert base_url({"ANTHROPIC_BASE_URL": f"{URL}/"}).remarks == ()


def test_with_settings_of_the_users_own_one_line_names_what_counts_and_none_says_otherwise():
    found = settings(ANTHROPIC_BASE_URL="http://old:1", HTTPS_PROXY="http://proxy:1", NO_PROXY="*", OTHER="1")
    given = child_environment("intercept", URL, CA, PROJECT, {}, found, overrides_settings=False)
    named = ", ".join(f"{name} in {USER}" for name in ("ANTHROPIC_BASE_URL", "HTTPS_PROXY", "NO_PROXY"))
    line = f"since you gave --settings, these count and not what the router needs: {named}"
    assert given.remarks == (line,)
    shell = {"ANTHROPIC_BASE_URL": "http://old:1"}
    given = child_environment("intercept", URL, CA, PROJECT, shell, NONE, overrides_settings=False)
    assert given.remarks == ("ANTHROPIC_BASE_URL of your shell is not used: http://old:1",)


def test_what_an_administrator_sets_is_named_and_decides_the_mode():
    found = ClaudeSettings([SettingsFile(MANAGED, {"env": {"HTTPS_PROXY": "http://proxy:1"}}, True)])
    assert f"your administrator sets HTTPS_PROXY in {MANAGED}: it may lead past the router" in (
        intercept({}, found).remarks
    )
    assert default_via({}, found) == "base-url"
    assert default_via({}, NONE) == "intercept"


@pytest.mark.parametrize(
    ("proxy", "via"),
    [
        ("http://p:1", "intercept"),
        ("p:1", "intercept"),
        ("socks5://p:1", "base-url"),
        ("https://p", "base-url"),
    ],
)
def test_a_proxy_that_the_router_cannot_use_is_left_to_claude_code(proxy, via):
    assert default_via({"https_proxy": proxy}, NONE) == via


@pytest.mark.parametrize("value", ["1", "true"])
def test_another_cloud_is_named(value):
    (remark,) = intercept({"CLAUDE_CODE_USE_BEDROCK": value}).remarks
    assert remark.endswith("Claude Code asks Amazon Bedrock, which is not routed")
    assert intercept({"CLAUDE_CODE_USE_BEDROCK": "0"}).remarks == ()


def test_other_clouds_are_those_that_are_not_switched_off():
    given = {"CLAUDE_CODE_USE_BEDROCK": "0", "CLAUDE_CODE_USE_VERTEX": "1"}
    assert other_clouds(given) == {"CLAUDE_CODE_USE_VERTEX": "Google Vertex"}


def test_features_are_one_line():
    assert features("intercept", {}) == "Remote Control ✓  tool search ✓  1M ✓  quota ✓"
    assert features("base-url", {"ENABLE_TOOL_SEARCH": "false"}).startswith("Remote Control ✗  tool search ✗")


def test_router_with_clients_is_told_one_by_the_user():
    clients = {"ann": "secret-of-ann"}
    assert not names_client(clients, {"ANTHROPIC_API_KEY": "other"})
    assert names_client(clients, {"ANTHROPIC_AUTH_TOKEN": "secret-of-ann"})
    assert names_client(clients, {"ANTHROPIC_CUSTOM_HEADERS": "a: b\nx-signalbox-client: secret-of-ann"})
    assert names_client({}, {})


def test_certificates_that_claude_code_trusts_are_those_of_shell_and_settings():
    shell = {"NODE_EXTRA_CA_CERTS": "/shell.pem", "SSL_CERT_FILE": "/all.pem"}
    found = trusted_files(shell, settings(NODE_EXTRA_CA_CERTS="/settings.pem"))
    assert found == (Path("/settings.pem"), Path("/all.pem"))
