"""What is done to mitmproxy's master: keys of its console, and where its listeners are."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.tools.console import defaultkeys
from mitmproxy.tools.console.keymap import Keymap

from signalbox import ports
from signalbox.proxy.setup import (
    FLOW_VIEWS,
    KEYS,
    Listener,
    base_url,
    bind_keys,
    client_commands,
    listeners,
    option_errors,
)

MODE = "reverse:https://api.anthropic.com@8082"
ALL_IPV4, ALL_IPV6 = ("0.0.0.0", 8082), ("::", 8082, 0, 0)


def keymap() -> Keymap:
    made = Keymap(Mock())
    defaultkeys.map(made)
    return made


def test_keys_are_bound_where_flows_are_shown_and_take_none_of_mitmproxys():
    keys = keymap()
    assert not [key for key in KEYS for context in FLOW_VIEWS if keys.get(context, key)]
    bind_keys(SimpleNamespace(keymap=keys))
    for context in FLOW_VIEWS:
        assert {key: keys.get(context, key).command for key in KEYS} == {
            "T": "console.command signalbox.replay @focus ",
            "Y": "signalbox.explain @focus",
        }


def test_key_that_the_user_has_bound_stays():
    keys = keymap()
    keys.add("T", "flow.mark.toggle @focus", ["flowlist"], "mine")
    bind_keys(SimpleNamespace(keymap=keys))
    assert keys.get("flowlist", "T").help == "mine"
    assert keys.get("flowview", "T").help == "Replay to another target"


def test_master_without_a_console_has_no_keys():
    bind_keys(SimpleNamespace())


def master(*addresses: tuple, mode: str = MODE) -> SimpleNamespace:
    """With one reverse listener on the addresses, in the order in which the system told them."""
    server = SimpleNamespace(mode=ProxyMode.parse(mode), listen_addrs=addresses)
    addons = {"proxyserver": SimpleNamespace(servers=[server])}
    return SimpleNamespace(options=Options(mode=[mode]), addons=addons)


@pytest.mark.parametrize("addresses", [(ALL_IPV4, ALL_IPV6), (ALL_IPV6, ALL_IPV4)])
def test_listener_on_all_addresses_is_named_by_ipv4_in_whatever_order_it_has_them(addresses):
    assert listeners(master(*addresses)) == [
        Listener("0.0.0.0", 8082, MODE),
        Listener("::", 8082, MODE),
    ]
    assert base_url(master(*addresses)) == "http://127.0.0.1:8082"
    (command,) = client_commands(master(*addresses))
    assert "http://127.0.0.1:8082" in command


def test_listener_on_ipv6_alone_is_named_by_its_loopback_address():
    assert base_url(master(ALL_IPV6)) == "http://[::1]:8082"
    (command,) = client_commands(master(ALL_IPV6))
    assert "http://[::1]:8082" in command


def test_listener_that_is_not_bound_has_no_command():
    assert list(client_commands(master())) == []
    assert base_url(master()) is None


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be listed")
def test_processes_are_searched_only_for_a_port_that_another_one_has(monkeypatch):
    """To look through all of them takes a tenth of a second of each start."""
    searched: list[int] = []
    monkeypatch.setattr(ports, "owner", lambda port: searched.append(port) or ports.Owner("python3", 4711))
    free = ports.free_port()
    assert list(option_errors(Options(mode=[f"regular@127.0.0.1:{free}"]))) == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = server.getsockname()[1]
        assert list(option_errors(Options(mode=[f"regular@127.0.0.1:{own}"]))) == []
        assert searched == []
        with listening_elsewhere() as port:
            assert list(option_errors(Options(mode=[f"regular@127.0.0.1:{port}"]))) == [
                f"port {port} is taken by python3 (process 4711): end that, or take another in --mode"
            ]


@contextmanager
def listening_elsewhere() -> Iterator[int]:
    """The port of another process."""
    code = "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate("\n", timeout=10)
