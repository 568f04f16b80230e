"""Hooks of our own, and mitmproxy's add-on manager with its handlers looked up once.

For every hook mitmproxy walks all of its add-ons and asks each for a method of that name, which is about 40 %
of the time that it spends on a request. Which add-on handles what changes only when one comes or goes, or an
option is set. Run in place, a hook also costs no task and no turn of the event loop.

For every record of a log it walks them too, with a hook that has long been replaced by Python's own logging.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from mitmproxy import hooks, http
from mitmproxy.addonmanager import AddonManager, safecall, traverse
from mitmproxy.exceptions import AddonHalt
from mitmproxy.flow import Flow
from mitmproxy.log import AddLogHook, LegacyLogEvents
from mitmproxy.proxy.commands import StartHook
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

type Handlers = list[list[Callable[..., Any]]]
"""One list for each add-on of the chain: its own handler and those of the add-ons inside it."""

type Steps = Generator[Awaitable[Any]]

IDLE_WITHOUT = {
    "anticache": "anticache",
    "anticomp": "anticomp",
    "blocklist": "block_list",
    "dumper": "flow_detail",
    "maplocal": "map_local",
    "mapremote": "map_remote",
    "modifybody": "modify_body",
    "modifyheaders": "modify_headers",
    "proxyauth": "proxyauth",
    "save": "save_stream_file",
    "savehar": "hardump",
    "stickyauth": "stickyauth",
    "stickycookie": "stickycookie",
    "upstreamauth": "upstream_auth",
}
"""Add-ons of mitmproxy whose handlers of flows do nothing while their option is empty."""
FORWARD_ONLY = ("onboarding",)
"""Those that do nothing where all listeners are reverse proxies: `mitm.it` is never the host there. Its
handler is asynchronous, and alone would cost a task for each request."""


class FlowHook(Protocol):
    """The class of a hook about a flow."""

    name: str

    def __call__(self, flow: http.HTTPFlow) -> StartHook: ...


@dataclass
class SignalboxAttemptHook(StartHook):
    """An attempt has failed and another one follows. The flow still shows the failed one."""

    flow: http.HTTPFlow


@dataclass
class SignalboxRenewHook(StartHook):
    """The key or login of the current attempt was refused: the command that printed it is to run again, or
    its file to be read again."""

    flow: http.HTTPFlow


@dataclass
class SignalboxRefreshHook(StartHook):
    """The request is routed next, by files that may have changed: logins, or the provenance of thinking that
    another router with the same state folder delivered."""

    flow: http.HTTPFlow


@dataclass
class SignalboxLearnedHook(StartHook):
    """The next bytes of the answer end a thinking block whose provenance is not in the file yet."""

    flow: http.HTTPFlow


@dataclass
class SignalboxResumeHook(StartHook):
    """A hook was run in place, and the stream has to wait: for an asynchronous handler that is not done yet,
    or for a flow that was intercepted, which mitmproxy waits for itself."""

    flow: http.HTTPFlow
    pending: asyncio.Task[None] | None = None

    def args(self) -> list[Any]:
        return [self.flow]


def install(manager: AddonManager) -> None:
    """Make this manager keep what it has looked up, and spare it hooks for logs that no add-on hears."""
    if type(manager) is AddonManager:
        manager.__class__ = CachingAddonManager
    if isinstance(manager, CachingAddonManager):
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LegacyLogEvents) and handler.master.addons is manager:
                handler.addFilter(partial(_is_heard, manager))


def _is_heard(manager: "CachingAddonManager", _: logging.LogRecord) -> bool:
    return manager.handles(AddLogHook.name)


class CachingAddonManager(AddonManager):
    _cached: dict[str, Handlers] | None = None

    def register(self, addon: Any) -> Any:
        try:
            return AddonManager.register(self, addon)
        finally:
            self._cached = None

    def remove(self, addon: Any) -> None:
        try:
            AddonManager.remove(self, addon)
        finally:
            self._cached = None

    def clear(self) -> None:
        AddonManager.clear(self)
        self._cached = None

    def trigger(self, event: hooks.Hook) -> None:
        AddonManager.trigger(self, event)
        if isinstance(event, hooks.ConfigureHook):  # what was idle may not be any more
            self._cached = None

    async def trigger_event(self, event: hooks.Hook) -> None:
        if isinstance(event, SignalboxResumeHook) and event.pending is not None:
            await event.pending
        else:
            steps = self._steps(event.name, event.args())
            for awaitable in steps:
                await _finish(steps, awaitable)

    def begin(self, name: str, data: Any) -> asyncio.Task[None] | None:
        """Run the hook `name` as `handle_lifecycle` does, but now. Returns what is left of it where a handler
        is asynchronous and does not end at once."""
        steps = self._lifecycle(name, data)
        for awaitable in steps:
            loop = asyncio.get_running_loop()
            task = asyncio.Task(_finish(steps, awaitable), loop=loop, eager_start=True)
            return None if task.done() else task
        return None

    def _lifecycle(self, name: str, data: Any) -> Steps:
        yield from self._steps(name, (data,))
        if isinstance(data, Flow) and self.handles(hooks.UpdateHook.name):
            yield from self._steps(hooks.UpdateHook.name, ([data],))

    def _steps(self, name: str, args: Sequence[Any]) -> Steps:
        """Call all handlers; gives what an asynchronous one returns, to be waited for before the next."""
        for handlers in self._handlers(name):
            try:
                for handler in handlers:
                    result = handler(*args)
                    if result is not None and inspect.isawaitable(result):
                        yield result
            except AddonHalt:
                return
            except Exception:
                with safecall():  # which tells of it, or passes it on
                    raise

    def handles(self, name: str) -> bool:
        """Whether any add-on has a handler of this name."""
        return bool(self._handlers(name))

    def _handlers(self, name: str) -> Handlers:
        cached = self._cached
        if cached is None:  # which it may become at any time, for threads that log
            cached = self._cached = {}
        if name not in cached:
            groups = ([*self._found(addon, name)] for addon in self.chain)
            cached[name] = [handlers for handlers in groups if handlers]
        return cached[name]

    def _found(self, addon: Any, name: str) -> Iterator[Callable[..., Any]]:
        for one in traverse([addon]):
            handler = getattr(one, name, None)
            if callable(handler) and not self._is_idle(one):
                yield handler

    def _is_idle(self, addon: Any) -> bool:
        if not type(addon).__module__.startswith("mitmproxy.addons."):
            return False
        name, options = type(addon).__name__.lower(), self.master.options
        if name in FORWARD_ONLY:
            keeps_host = "keep_host_header" in options and options.keep_host_header
            modes = map(ProxyMode.parse, options.mode)
            return not keeps_host and all(isinstance(mode, ReverseMode) for mode in modes)
        option = IDLE_WITHOUT.get(name)
        return option is not None and option in options and not getattr(options, option)


async def _finish(steps: Steps, awaitable: Awaitable[Any]) -> None:
    """Wait for this one, then go on with the other handlers."""
    while True:
        try:
            await awaitable
        except Exception as error:
            go_on = partial(steps.throw, error)
        else:
            go_on = partial(next, steps)
        try:
            awaitable = go_on()
        except StopIteration:
            return


def begin(manager: AddonManager, hook: FlowHook, flow: http.HTTPFlow) -> StartHook | None:
    """Run a hook of this kind without a task and a turn of the event loop. Returns what is to be yielded in
    its place, where it is not over by that."""
    if not isinstance(manager, CachingAddonManager):
        return hook(flow)
    pending = manager.begin(hook.name, flow)
    return SignalboxResumeHook(flow, pending) if pending is not None or flow.intercepted else None
