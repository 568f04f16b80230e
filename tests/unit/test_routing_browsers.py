"""Which requests a web page may have sent."""

import pytest

from signalbox.routing.browsers import cross_site_refusal, host_refusal, is_of_a_page, is_preflight

HOSTS = ("router.lan",)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "localhost",
        "LOCALHOST:8082",
        "localhost.:1",
        "127.0.0.1:8082",
        "127.7.7.7",
        "[::1]",
        "[::1]:65535",
        "[::ffff:127.0.0.1]:8082",
        "router.lan",
        "Router.LAN:80",
        "192.168.1.5:8082",
    ],
)
def test_the_machines_own_names_are_answered_at_any_port(host):
    assert host_refusal(host, HOSTS, "192.168.1.5") is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8082",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example/localhost",
        "localhost, evil.example",
        "0.0.0.0:8082",
        "192.168.1.6",
        "[::2]",
        "[::1",
        "localhost:port",
        "sub.router.lan",
    ],
)
def test_any_other_name_may_be_a_rebound_one(host):
    assert host_refusal(host, HOSTS, "192.168.1.5")


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"sec-fetch-mode": "cors"}, False),  # Node's fetch
        ({"Origin": "http://localhost:8082"}, False),
        ({"Origin": "http://LOCALHOST:8082", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "https://router.lan"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "null"}, True),
        ({"Origin": ""}, True),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://localhost:3000"}, True),
        ({"Origin": "http://127.0.0.1:8082"}, True),
        ({"Origin": "https://evil.example/localhost:8082"}, True),
        ({"Origin": "http://localhost:8082@evil.example"}, True),
        ({"Origin": "chrome-extension://localhost:8082"}, True),
        ({"Origin": "file://"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Origin": "http://localhost:8082", "Sec-Fetch-Site": "cross-site"}, True),
    ],
)
def test_only_pages_of_the_routers_own_origin_may_ask(headers, refused):
    told = cross_site_refusal(tuple(headers.items()), "localhost:8082", HOSTS, by_site=True)
    assert (told is not None) is refused


def test_one_foreign_origin_among_several_is_enough():
    both = (("Origin", "http://localhost:8082"), ("origin", "https://evil.example"))
    assert cross_site_refusal(both, "localhost:8082", (), by_site=True)


def test_ports_that_a_scheme_implies_need_not_be_written():
    assert cross_site_refusal((("Origin", "http://localhost"),), "localhost:80", (), by_site=True) is None
    assert cross_site_refusal((("Origin", "https://api.x:443"),), "api.x", (), by_site=True) is None


def test_a_forward_proxy_goes_by_origin_alone():
    site = ("Sec-Fetch-Site", "cross-site")
    assert cross_site_refusal((site,), "api.anthropic.com:443", (), by_site=False) is None
    assert cross_site_refusal((site, ("Origin", "https://x")), "api.anthropic.com:443", (), by_site=False)


def test_a_page_and_a_preflight_are_recognized_by_what_browsers_add():
    assert is_of_a_page((("Origin", "null"),))
    assert not is_of_a_page((("sec-fetch-mode", "cors"),))
    assert is_preflight("OPTIONS", (("Access-Control-Request-Method", "POST"),))
    assert not is_preflight("OPTIONS", ())
    assert not is_preflight("POST", (("Access-Control-Request-Method", "POST"),))
