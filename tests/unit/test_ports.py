"""Ports of this machine."""

import os
import socket
import sys
from pathlib import Path

import pytest

from signalbox.ports import is_free, owner, taken, url_of
from tests.support.router_process import free_ports


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_port_that_is_listened_on_is_not_free(listening, host):
    assert not is_free(listening, host)


def test_a_free_port_is_free_before_and_after():
    (port,) = free_ports(1)
    assert is_free(port)
    assert is_free(port)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_its_process_is_named(listening):
    name = Path("/proc/self/comm").read_text().strip()
    assert owner(listening) == (name, os.getpid())
    assert taken(listening) == f"port {listening} is taken by {name} (process {os.getpid()})"


def test_a_port_that_nobody_has_has_no_owner():
    (port,) = free_ports(1)
    assert owner(port) is None
    assert taken(port) == f"port {port} is taken by another program"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("fd00::1", "http://[fd00::1]:80"),
        ("box.lan", "http://box.lan:80"),
    ],
)
def test_a_listener_is_named_as_one_reaches_it_from_here(host, url):
    assert url_of(host, 80) == url
