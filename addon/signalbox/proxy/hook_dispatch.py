"""Hooks of our own, and mitmproxy's add-on manager with its handlers looked up once.

For every hook mitmproxy walks all of its add-ons and asks each for a method of that name, which is about 40 %
of the time that it spends on a request. Which add-on handles what changes only when one comes or goes.

For every record of a log it walks them too, with a hook that has long been replaced by Python's own logging.
"""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mitmproxy import hooks, http
from mitmproxy.addonmanager import AddonManager, safecall, traverse
from mitmproxy.exceptions import AddonHalt
from mitmproxy.flow import Flow
from mitmproxy.log import AddLogHook, LegacyLogEvents
from mitmproxy.proxy.commands import StartHook
from mitmproxy.utils.asyncio_utils import create_task

type Handlers = list[list[Callable[..., Any]]]
"""One list for each add-on of the chain: its own handler and those of the add-ons inside it."""


@dataclass
class SignalboxAttemptHook(StartHook):
    """An attempt has failed and another one follows. The flow still shows the failed one."""

    flow: http.HTTPFlow


@dataclass
class SignalboxRenewHook(StartHook):
    """The key of the current attempt was refused, and the command that printed it is to run again."""

    flow: http.HTTPFlow


@dataclass
class SignalboxRefreshHook(StartHook):
    """The request may hold thinking blocks that another router with the same state folder delivered."""

    flow: http.HTTPFlow


@dataclass
class SignalboxLearnedHook(StartHook):
    """The next bytes of the answer end a thinking block whose provenance is not in the file yet."""

    flow: http.HTTPFlow


@dataclass
class SignalboxResumeHook(StartHook):
    """A flow was intercepted in a hook that ran in place: mitmproxy waits until it is resumed."""

    flow: http.HTTPFlow


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
    _kept: dict[str, Handlers] | None = None

    def register(self, addon: Any) -> Any:
        try:
            return AddonManager.register(self, addon)
        finally:
            self._kept = None

    def remove(self, addon: Any) -> None:
        try:
            AddonManager.remove(self, addon)
        finally:
            self._kept = None

    def clear(self) -> None:
        AddonManager.clear(self)
        self._kept = None

    async def trigger_event(self, event: hooks.Hook) -> None:
        found = self._handlers(event.name)
        args = event.args() if found else []
        for handlers in found:
            try:
                for handler in handlers:
                    result = handler(*args)
                    if result is not None and inspect.isawaitable(result):
                        await result
            except AddonHalt:
                return
            except Exception:
                with safecall():  # which tells of it, or passes it on
                    raise

    def run_in_place(self, hook: hooks.Hook) -> bool:
        """Run a hook as `handle_lifecycle` does, but now; False, and nothing was run, where a handler is
        asynchronous."""
        flow = hook.args()[0]
        chain = [hook, *([hooks.UpdateHook([flow])] if isinstance(flow, Flow) else ())]
        found = [self._handlers(one.name) for one in chain]
        if any(inspect.iscoroutinefunction(handler) for one in found for group in one for handler in group):
            return False
        for one, groups in zip(chain, found, strict=True):
            try:
                for handlers in groups:
                    _run(handlers, one)
            except AddonHalt:
                continue
        return True

    def handles(self, name: str) -> bool:
        """Whether any add-on has a handler of this name."""
        return bool(self._handlers(name))

    def _handlers(self, name: str) -> Handlers:
        kept = self._kept
        if kept is None:  # which it may become at any time, for threads that log
            kept = self._kept = {}
        if name not in kept:
            found = ([handler for _, handler in self._found(addon, name)] for addon in self.chain)
            kept[name] = [handlers for handlers in found if handlers]
        return kept[name]

    def _found(self, addon: Any, name: str) -> Any:
        for one in traverse([addon]):
            handler = getattr(one, name, None)
            if callable(handler):
                yield one, handler


def _run(handlers: list[Callable[..., Any]], hook: hooks.Hook) -> None:
    try:
        for handler in handlers:
            if inspect.iscoroutine(result := handler(*hook.args())):
                create_task(result, name=f"handler of {hook.name}", keep_ref=True)
    except AddonHalt:
        raise
    except Exception:
        with safecall():  # which tells of it, or passes it on
            raise


def runs_in_place(manager: AddonManager, hook: hooks.Hook) -> bool:
    """Run a hook without a task and a turn of the event loop; False, and nothing was run, where that cannot
    be."""
    return isinstance(manager, CachingAddonManager) and manager.run_in_place(hook)
