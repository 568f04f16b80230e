"""Hooks of our own that mitmproxy runs for the router."""

from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.proxy.commands import StartHook


@dataclass
class SignalboxAttemptHook(StartHook):
    """An attempt has failed and another one follows. The flow still shows the failed one."""

    flow: http.HTTPFlow


@dataclass
class SignalboxRenewHook(StartHook):
    """The key of the current attempt was refused, and the command that printed it is to run again."""

    flow: http.HTTPFlow


@dataclass
class SignalboxResumeHook(StartHook):
    """A flow was intercepted in a hook that ran in place: mitmproxy waits until it is resumed."""

    flow: http.HTTPFlow
