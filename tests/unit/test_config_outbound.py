"""Through which proxy each provider is asked, by the rules and by the environment."""

from pathlib import Path

import pytest

from signalbox.config.fields import Proxy, Url, parse_proxy
from signalbox.config.load import RulesError, parse
from signalbox.config.outbound import from_environment, names
from signalbox.config.rules import Rules

CORP = Proxy("proxy.example.com", 3128)


def load(more: str = "", url: str = "https://api.z.ai", **environ: str) -> Rules:
    text = f'providers:\n  zai: {{url: "{url}", key: zai-key-for-tests-0001{more}}}\n'
    return parse(text, file=Path("rules.yaml"), environ=environ)


def proxy_of(more: str = "", url: str = "https://api.z.ai", **environ: str) -> Proxy | None:
    return load(more, url, **environ).providers["zai"].proxy


@pytest.mark.parametrize(
    ("written", "proxy"),
    [
        ("http://proxy.example.com:3128", CORP),
        ("http://proxy.example.com:3128/", CORP),
        ("http://proxy.example.com", Proxy("proxy.example.com", 80)),
        ("http://[::1]:3128", Proxy("::1", 3128)),
        ("http://ann:p%40ss%3Aword@10.0.0.1:8080", Proxy("10.0.0.1", 8080, "ann", "p@ss:word")),
        ("none", "none"),
    ],
)
def test_a_proxy_is_written_as_a_url(written, proxy):
    assert parse_proxy(written) == proxy


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("socks5://proxy.example.com:1080", "it must begin with http://"),
        ("https://proxy.example.com", "it must begin with http://"),
        ("proxy.example.com:3128", "it must begin with http://"),
        ("http://ann:fake#secret@proxy.example.com:3128", "its host or port is not one"),
        ("http://ann:fake@proxy.example.com:3128/path", "nothing follows its port"),
        ("http://ann:fake secret@proxy.example.com", "it holds a space"),
        ("http://ann:fake%0Asecret@proxy.example.com", "a character that cannot be sent"),
        ("http://:3128", "it has no host"),
    ],
)
def test_what_is_no_proxy_is_refused_without_repeating_it(written, fault):
    with pytest.raises(RulesError) as caught:
        load(f', proxy: "{written}"')
    (line,) = caught.value.errors
    assert fault in line
    assert line.startswith("rules.yaml:2: ")
    assert "(at $.providers.zai.proxy)" in line
    assert "fake" not in line
    assert "proxy.example.com" not in line.replace("http://proxy.example.com:3128", "")  # the example


def test_credentials_are_sent_as_basic_and_shown_to_nobody():
    proxy = Proxy("proxy.example.com", 3128, "ann", "fake-password")
    assert proxy.authorization == "Basic YW5uOmZha2UtcGFzc3dvcmQ="
    assert repr(proxy) == "Proxy('proxy.example.com:3128')"
    assert CORP.authorization is None


def test_the_environments_proxy_is_that_of_the_urls_scheme():
    environ = {"HTTPS_PROXY": "http://proxy.example.com:3128", "HTTP_PROXY": "http://other.example.com:80"}
    assert proxy_of(**environ) == CORP
    assert proxy_of(url="http://api.z.ai", **environ) == Proxy("other.example.com", 80)
    assert proxy_of(HTTP_PROXY="http://other.example.com:80") is None


def test_lower_case_wins_and_a_scheme_may_be_missing():
    assert proxy_of(https_proxy="proxy.example.com:3128", HTTPS_PROXY="http://other.example.com") == CORP


def test_the_rules_win_over_the_environment():
    environ = {"HTTPS_PROXY": "http://other.example.com:80"}
    assert proxy_of(', proxy: "http://proxy.example.com:3128"', **environ) == CORP
    assert proxy_of(", proxy: none", **environ) is None


def test_no_proxy_names_who_is_asked_directly():
    environ = {"HTTPS_PROXY": "proxy.example.com:3128"}
    assert proxy_of(**environ, NO_PROXY="example.org, .z.ai") is None
    assert proxy_of(', proxy: "http://proxy.example.com:3128"', **environ, NO_PROXY="*") == CORP
    assert proxy_of(**environ, NO_PROXY="example.org") == CORP


@pytest.mark.parametrize(
    ("entry", "host", "port", "named"),
    [
        ("*", "anything", 1, True),
        ("z.ai", "z.ai", 443, True),
        ("z.ai", "api.z.ai", 443, True),
        (".z.ai", "api.z.ai", 443, True),
        ("*.z.ai", "api.z.ai", 443, True),
        ("z.ai", "notz.ai", 443, False),
        ("z.ai:8443", "api.z.ai", 443, False),
        ("z.ai:8443", "api.z.ai", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("127.0.0.1", "127.0.0.1", 80, True),
        ("127.0.0.1:81", "127.0.0.1", 80, False),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("localhost", "127.0.0.1", 80, False),
        (".", "z.ai", 443, False),
    ],
)
def test_entries_of_no_proxy(entry, host, port, named):
    assert names(entry, host, port) is named


@pytest.mark.parametrize("written", ["socks5://ann:fake-password@proxy.example.com", "http://", "http://a b"])
def test_an_environment_that_names_no_http_proxy_is_reported_and_not_used(written):
    rules = load(HTTPS_PROXY=written)
    assert rules.providers["zai"].proxy is None
    (line,) = rules.warnings
    assert "HTTPS_PROXY is not used: " in line
    assert "fake-password" not in line


def test_a_provider_on_this_machine_behind_a_proxy_elsewhere_is_reported():
    (line,) = load(url="http://localhost:11434", HTTP_PROXY="proxy.example.com:3128").warnings
    assert "localhost is asked through the proxy proxy.example.com:3128: write proxy: none" in line
    assert load(url="http://localhost:11434", HTTP_PROXY="127.0.0.1:3128").warnings == ()
    assert load(", proxy: none", "http://localhost:11434", HTTP_PROXY="proxy.example.com:1").warnings == ()


def test_hosts_that_are_no_provider_have_the_environments_proxy_too():
    outbound = from_environment({"HTTPS_PROXY": "proxy.example.com:3128", "NO_PROXY": "example.org"})
    assert outbound.to(Url("https", "example.com", 443)) == CORP
    assert outbound.to(Url("https", "example.org", 443)) is None
    assert outbound.to(Url("http", "example.com", 80)) is None
