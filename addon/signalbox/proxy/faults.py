"""How faults are told: in one line, never as a traceback."""

import os
import re
import traceback
from pathlib import Path

_LONGEST = 200


def in_words(message: str) -> str:
    """What mitmproxy says of a connection, less Python's ways: `Connection refused`."""
    if number := re.search(r"\[Errno (-?\d+)\] (?:Connect call failed)?", message):
        text = os.strerror(int(number[1])) if int(number[1]) > 0 else message[number.end() :]
        return text[:_LONGEST]
    return message[:_LONGEST]


def place(fault: BaseException) -> str:
    """`KeyError in plan.py:41`. The fault's own text is left out: it could quote a body or a key."""
    frames = traceback.extract_tb(fault.__traceback__)
    if not frames:
        return type(fault).__name__
    return f"{type(fault).__name__} in {Path(frames[-1].filename).name}:{frames[-1].lineno}"
