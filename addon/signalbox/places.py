"""The files that come with the package, in a checkout of the project or in a wheel."""

from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "addon"
"""What a wheel adds; a folder of its own, since mitmproxy puts the folder of `router.py` on sys.path."""

IS_CHECKOUT = not _IN_WHEEL.is_dir()
HOME = _PACKAGE.parents[1] if IS_CHECKOUT else platformdirs.user_config_path("signalbox")
"""Folder of the default `rules.yaml` and of the second `.env`: the checkout, else the platform's per-user
configuration folder."""
ROUTER = (_PACKAGE.parent if IS_CHECKOUT else _IN_WHEEL) / "router.py"
"""What mitmproxy loads with `-s`."""
SCHEMA = ROUTER.with_name("rules.schema.json")
"""The JSON Schema of rules.yaml."""
EXAMPLES = (HOME if IS_CHECKOUT else _IN_WHEEL) / "examples"
"""Rules and whole setups to begin with; the single files with rules are the presets of `signalbox init`."""
FIRST_RULES = (HOME if IS_CHECKOUT else _IN_WHEEL) / "rules.yaml"
"""The rules that come with the package."""


def default_rules() -> Path:
    """`rules.yaml` in HOME; an installation whose user has none there takes the one in the wheel."""
    own = HOME / "rules.yaml"
    return own if IS_CHECKOUT or own.exists() else FIRST_RULES
