"""What is known of quota, from one start to the next. No credential is in it."""

from pathlib import Path

from signalbox.config import files
from signalbox.routing.quota import Quotas

FILE = "quota.json"
"""In `router_state`."""


def read(state: Path) -> Quotas:
    """What the last answers told; nothing where there is no such file."""
    try:
        return Quotas(files.read(state / FILE))
    except OSError:
        return Quotas()
