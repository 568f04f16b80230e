"""Windows has no signal that asks a process without a window to end: an event of the system does that.

Everything here does nothing on other systems, where a signal is sent.
"""

import signal
import sys
import threading

SYNCHRONIZE, EVENT_MODIFY_STATE = 0x00100000, 0x0002
INFINITE = 0xFFFFFFFF


def event_name(pid: int) -> str:
    """Of the event on which the router with this process id ends. `Local`: of this login session."""
    return rf"Local\signalbox-end-{pid}"


def end_when_asked(pid: int) -> None:
    """Let `ask_to_end` end this process as Ctrl-C would."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        event = kernel.CreateEventW(None, True, False, event_name(pid))

        def wait() -> None:
            kernel.WaitForSingleObject(event, INFINITE)
            signal.raise_signal(signal.SIGINT)

        threading.Thread(target=wait, name="signalbox-end", daemon=True).start()


def ask_to_end(pid: int) -> bool:
    """Whether the router with this process id was asked to end."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        event = kernel.OpenEventW(EVENT_MODIFY_STATE | SYNCHRONIZE, False, event_name(pid))
        if event:
            asked = bool(kernel.SetEvent(event))
            kernel.CloseHandle(event)
            return asked
    return False
