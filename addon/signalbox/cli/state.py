"""The state folder, for commands that read what a router keeps there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import platformdirs


def state_option[F: Callable[..., Any]](what: str) -> Callable[[F], F]:
    """The option `--state`; by default the folder that routers use by default."""
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default=lambda: platformdirs.user_state_path("signalbox"),
        help=what,
    )
