"""uvloop as the event loop of a router that our own commands start.

A script cannot do this for the plain `mitmdump -s` line: its loop runs before the script is loaded.
docs/performance.md has the gain.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any


def use_uvloop() -> None:
    """For the next `asyncio.run` of this process. Not on Windows, for which there is no uvloop, and not where
    SIGNALBOX_PLAIN asks for mitmproxy's own ways."""
    if sys.platform != "win32" and os.environ.get("SIGNALBOX_PLAIN", "") in ("", "0"):
        asyncio.set_event_loop_policy(_policy())


def _policy() -> asyncio.AbstractEventLoopPolicy:
    import uvloop  # not there on Windows

    class Loop(uvloop.Loop):
        def set_task_factory(self, factory: Any) -> None:
            """mitmproxy's eager factory does not know `eager_start`, which uvloop hands to factories."""

            def without_eager_start(
                loop: asyncio.AbstractEventLoop,
                coroutine: Coroutine[Any, Any, Any],
                eager_start: bool | None = None,
                **kwargs: Any,
            ) -> Any:
                return factory(loop, coroutine, **kwargs)

            adapted: Any = without_eager_start
            super().set_task_factory(adapted if factory is not None else None)

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return Loop()

    return Policy()
