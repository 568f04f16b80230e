"""The add-on manager that looks handlers up once does what mitmproxy's own does."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons.anticache import AntiCache
from mitmproxy.addons.onboarding import Onboarding
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.hooks import Hook
from mitmproxy.log import LegacyLogEvents, LogEntry
from mitmproxy.options import Options
from mitmproxy.proxy.layers.http import HttpRequestHook
from mitmproxy.test import taddons
from mitmproxy.test.tflow import tflow

from signalbox.proxy.hook_dispatch import CachingAddonManager, install


@dataclass
class RungHook(Hook):
    """A hook of the tests."""

    heard: list[str]


class Master:
    """As much of a master as a manager needs."""

    def __init__(self) -> None:
        self.options = Options()
        self.commands = self

    def collect_commands(self, addon: object) -> None:
        pass


class Bell:
    def __init__(self, name: str, *inside: Any, does: Any = None) -> None:
        self.name, self.addons, self._does = name, list(inside), does

    def rung(self, heard: list[str]) -> Any:
        heard.append(self.name)
        return self._does() if self._does else None


class Deaf:
    name = "deaf"


@pytest.fixture(params=[False, True], ids=["mitmproxy's own", "ours"])
def manager(request) -> AddonManager:
    manager = AddonManager(Master())
    if request.param:
        install(manager)
        assert type(manager) is CachingAddonManager
    return manager


def ring(manager: AddonManager) -> list[str]:
    heard: list[str] = []
    asyncio.run(manager.trigger_event(RungHook(heard)))
    return heard


def test_handlers_are_called_in_the_order_of_the_chain_and_inside_out(manager):
    manager.add(Bell("a", Bell("b", Bell("c"))), Deaf(), Bell("d"))
    assert ring(manager) == ["a", "b", "c", "d"]
    assert ring(manager) == ["a", "b", "c", "d"]


def test_an_add_on_that_comes_is_heard_and_one_that_goes_is_not(manager):
    first, outer = Bell("first"), Bell("outer")
    manager.add(first, outer)
    assert ring(manager) == ["first", "outer"]
    late = Bell("late")
    manager.register(late)
    outer.addons.append(late)  # as a script loader does: it is registered, then put in its place
    assert ring(manager) == ["first", "outer", "late"]
    manager.remove(first)
    assert ring(manager) == ["outer", "late"]
    manager.clear()
    assert ring(manager) == []


def test_a_coroutine_is_waited_for(manager):
    done = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append("work")

    manager.add(Bell("a", does=work))
    assert ring(manager) == ["a"]
    assert done == ["work"]


def test_a_fault_is_logged_and_the_next_add_on_is_called(manager, caplog):
    manager.add(Bell("a", Bell("inside"), does=lambda: 1 / 0), Bell("b"))
    with caplog.at_level(logging.ERROR):
        assert ring(manager) == ["a", "b"]
    assert "Addon error" in caplog.text


def test_a_halt_ends_the_round(manager):
    def halt() -> None:
        raise exceptions.AddonHalt

    manager.add(Bell("a", does=halt), Bell("b"))
    assert ring(manager) == ["a"]


class Later:
    """An add-on whose handler ends after a turn of the event loop, and may fail then."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def rung(self, heard: list[str]) -> None:
        await asyncio.sleep(0)
        heard.append("later")
        if self.error is not None:
            raise self.error


class AtOnce:
    async def rung(self, heard: list[str]) -> None:
        heard.append("at once")


def begun(*addons: object) -> tuple[list[str], list[str]]:
    """What was heard when a hook had been begun in place, and when all of it was over."""

    async def run() -> tuple[list[str], list[str]]:
        manager = AddonManager(Master())
        install(manager)
        manager.add(*addons)
        heard: list[str] = []
        rest = manager.begin(RungHook.name, heard)
        at_once = [*heard]
        if rest is not None:
            await rest
        return at_once, heard

    return asyncio.run(run())


def test_plain_handlers_and_coroutines_that_end_at_once_run_in_place():
    assert begun(Bell("a"), AtOnce(), Bell("b")) == (["a", "at once", "b"],) * 2


def test_what_follows_an_asynchronous_handler_runs_after_it():
    assert begun(Bell("a"), Later(), Bell("b")) == (["a"], ["a", "later", "b"])


@pytest.mark.parametrize(
    ("error", "heard"),
    [(ValueError("of the test"), ["later", "b"]), (exceptions.AddonHalt(), ["later"])],
    ids=["fault", "halt"],
)
def test_an_asynchronous_handler_may_fail_or_halt(error, heard):
    assert begun(Later(error), Bell("b"))[1] == heard


def test_an_add_on_of_mitmproxy_is_called_only_while_its_option_is_set():
    calls = []

    class Counting(AntiCache):
        def request(self, flow: Any) -> None:
            calls.append(flow)

    Counting.__name__, Counting.__module__ = AntiCache.__name__, AntiCache.__module__
    with taddons.context() as context:
        install(context.master.addons)
        context.master.addons.add(Counting())
        flow = tflow()
        context.master.addons.begin(HttpRequestHook.name, flow)
        assert not calls
        context.options.anticache = True
        context.master.addons.begin(HttpRequestHook.name, flow)
        assert calls == [flow]


class Listener:
    """An add-on with the old hook for logs."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def add_log(self, entry: LogEntry) -> None:
        self.heard.append(entry.msg)


class Loop:
    """As much of an event loop as the old hook for logs needs."""

    def __init__(self) -> None:
        self.calls = 0

    def call_soon_threadsafe(self, call: Any, *args: Any) -> None:
        self.calls += 1
        call(*args)


def test_a_record_of_a_log_becomes_a_hook_where_an_add_on_hears_it_and_only_there():
    master: Any = Master()
    master.addons, master.event_loop = AddonManager(master), Loop()
    logs = LegacyLogEvents(master)
    logs.install()
    try:
        install(master.addons)
        logging.getLogger(__name__).error("nobody")
        assert master.event_loop.calls == 0
        listener = Listener()
        master.addons.add(listener)
        logging.getLogger(__name__).error("somebody")
    finally:
        logs.uninstall()
    assert [entry.rpartition(" ")[2] for entry in listener.heard] == ["somebody"]


def test_the_page_of_mitmproxys_certificate_is_served_by_forward_proxies_alone():
    with taddons.context(Proxyserver()) as context:
        manager = context.master.addons
        install(manager)
        manager.add(Onboarding())
        assert manager.handles(HttpRequestHook.name)
        context.options.mode = ["reverse:http://upstream.invalid"]
        assert not manager.handles(HttpRequestHook.name)
        context.options.keep_host_header = True
        assert manager.handles(HttpRequestHook.name)
