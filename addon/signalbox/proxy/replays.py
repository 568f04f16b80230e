"""mitmproxy's own replay of a flow that the router has handled is refused.

Such a flow shows what went to its last target, with masked credentials. Sent again it would pass the rules
by, and the prompt with it. Replays come from mitmweb, from commands and from files, and all pass `check` of
`mitmproxy/addons/clientplayback.py`.
"""

from collections.abc import Callable
from typing import Any

from mitmproxy.addonmanager import AddonManager
from mitmproxy.flow import Flow

MARK = "signalbox"
"""The key in `Flow.metadata` of flows that the router has handled; copies and saved flows have it too."""

REFUSAL = (
    "Can't replay a flow that Signalbox has handled: it holds masked credentials, and would pass"
    " the rules by. Send the request from its client again."
)


def is_refused(flow: Flow) -> bool:
    return MARK in flow.metadata


def refuse(manager: AddonManager) -> None:
    """Have mitmproxy say no before it empties such a flow, in one line of its log."""
    playback: Any = manager.get("clientplayback")
    if playback is None:
        return
    check: Callable[[Flow], str | None] = playback.check
    playback.check = lambda flow: REFUSAL if is_refused(flow) else check(flow)
