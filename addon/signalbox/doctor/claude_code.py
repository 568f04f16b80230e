"""Checks of Claude Code: its version, what in its settings leads past the router, and what the present way to
the router switches off.

What Claude Code 2.1.328 does with each variable was tried: claude-code-tried.md, 1, 2, 8 and 9.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from signalbox import ports
from signalbox.claude.certificates import CA, authority_folder
from signalbox.claude.environment import (
    BASE_URL,
    BEHIND_BASE_URL,
    CA_FILE,
    HINTS,
    HTTPS_PROXY,
    default_via,
    features,
    other_clouds,
)
from signalbox.claude.session import INSTALL
from signalbox.claude.settings import config_folder, is_foreign, settings_paths
from signalbox.config.outbound import direct_hosts, names
from signalbox.config.rules import ANTHROPIC_HOST
from signalbox.doctor.findings import Address, Finding, Situation, address_of, is_here, is_loopback

PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
VERSION_LIMIT = 10.0
"""Seconds for `claude --version`."""
WITH_PICKER = (2, 1, 243)
"""The first version that takes `modelPicker`."""
TOKENS = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")
MODELS = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
)
TOOLS = {
    3456: "claude-code-router",
    4000: "LiteLLM",
    8080: "mitmproxy, or a proxy of another kind",
    8317: "CLIProxyAPI",
    15721: "cc-switch",
}
"""Programs that set Claude Code's base URL, by the port that they use by default."""
PROFILES = (
    ".profile",
    ".bash_profile",
    ".bash_login",
    ".bashrc",
    ".zshenv",
    ".zprofile",
    ".zshrc",
    ".config/fish/config.fish",
    "Documents/PowerShell/Microsoft.PowerShell_profile.ps1",
    "Documents/WindowsPowerShell/Microsoft.PowerShell_profile.ps1",
)
"""Files of shells, below the user's home."""
_BEHIND = {
    "ENABLE_TOOL_SEARCH": "tool search",
    "CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING": "streams of tool arguments",
}
_LEADING = (BASE_URL, HTTPS_PROXY, "https_proxy")
"""Variables that say where Claude Code's requests go."""
_ASSIGNED = re.compile(
    rf"^\s*(?:export\s+|setx?\s+(?:-\w+\s+)*|\$env:)?({'|'.join(_LEADING)})\s*[= ]\s*['\"]?([^'\"\s;#]+)"
)


class _Place(NamedTuple):
    """Where one of these variables is set."""

    variable: str
    value: str
    where: str
    remedy: str


def claude(situation: Situation) -> Iterator[Finding]:
    program = shutil.which("claude", path=situation.environ.get("PATH"))
    if program is None:
        message, _, remedy = INSTALL.partition(". This installs it: ")
        yield Finding("claude", "warn", message, remedy)
        return
    try:
        asked = subprocess.run(  # noqa: S603  the user's own Claude Code
            [program, "--version"],
            env=dict(situation.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        again = "install it again: npm install -g @anthropic-ai/claude-code"
        yield Finding("claude", "fail", f"{program} --version: {type(error).__name__}", again)
        return
    found = re.search(rb"(\d+)\.(\d+)\.(\d+)", asked.stdout)
    if found is None:
        yield Finding("claude", "warn", f"{program} does not tell its version", "claude --version")
        return
    version = tuple(map(int, found.groups()))
    said = f"Claude Code {'.'.join(map(str, version))} at {program}"
    if version < WITH_PICKER:
        message = f"{said} is older than 2.1.243 and takes no models of others in /model by settings"
        yield Finding("claude", "warn", message, "claude update")
    else:
        yield Finding("claude", "ok", said)
    yield from _login(situation)


def _login(situation: Situation) -> Iterator[Finding]:
    """Whether there is anything for providers with `auth: client`."""
    wants = [name for name, one in situation.rules.providers.items() if one.auth == "client"]
    has = any(situation.given.get(name) for name in TOKENS) or situation.settings.has("apiKeyHelper")
    folder = config_folder(situation.environ, situation.home)
    if not wants or has or situation.platform == "darwin" or (folder / ".credentials.json").exists():
        return
    message = f"Claude Code has neither login nor key, which {', '.join(wants)} (auth: client) needs"
    yield Finding("claude", "warn", message, "claude auth login")


# settings


def settings(situation: Situation) -> Iterator[Finding]:
    found = [*_broken(situation), *_leading(situation), *_credentials(situation), *_models(situation)]
    found += _clouds(situation)
    yield from found or [
        Finding("settings", "ok", "nothing in settings, environment or shell profiles leads past the router")
    ]


def _broken(situation: Situation) -> Iterator[Finding]:
    for path in settings_paths(situation.environ, situation.project, situation.home, situation.platform):
        try:
            values = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            message = f"{path} cannot be read as JSON: Claude Code ignores it"
            yield Finding("settings", "fail", message, f"mend or delete {path}")


def _leading(situation: Situation) -> Iterator[Finding]:
    """Each place that says where requests go, if that is not the router, or no router is there."""
    for place in _places(situation):
        address = address_of(place.value)
        is_base_url = place.variable == BASE_URL
        what = f"{place.variable} {place.where}"
        if address is None:
            yield Finding("settings", "fail", f"{what} is no URL", place.remedy)
        elif is_here(address, situation.listeners):
            if not any(is_here(address, [listen]) for listen in situation.running):
                message = f"{what} is {address}, where no router runs: a plain `claude` fails"
                yield Finding("settings", "fail", message, f"signalbox run, or {place.remedy}")
        elif is_loopback(address.host) and ports.is_free(address.port):
            whose = f" ({TOOLS[address.port]})" if address.port in TOOLS else ""
            message = f"{what} is {address}{whose}, where nothing listens: a plain `claude` fails"
            yield Finding("settings", "fail", message, place.remedy)
        elif is_base_url and address.host != ANTHROPIC_HOST:
            message = f"{what} is {_shown(address)}: Claude Code goes there and not to this router"
            yield Finding("settings", "warn", message, place.remedy)


def _shown(address: Address) -> str:
    """With the program that has the port, if it is on this machine."""
    owner = ports.owner(address.port) if is_loopback(address.host) else None
    name = TOOLS.get(address.port) if is_loopback(address.host) else None
    known = ", ".join(str(one) for one in (name, owner) if one is not None)
    return f"{address} ({known})" if known else str(address)


def _places(situation: Situation) -> Iterator[_Place]:
    for variable in _LEADING:
        if value := situation.given.get(variable):
            yield _Place(variable, value, situation.where(variable), situation.taken_out(variable))
        if (own := situation.environ.get(variable)) and own != situation.given.get(variable):
            yield _Place(variable, own, "in the environment", f"unset {variable}")
    for name in PROFILES:
        file = situation.home / name
        for number, line in enumerate(_lines(file), 1):
            if (found := _ASSIGNED.match(line)) is not None and not found[2].startswith("$"):
                where = f"in {file}:{number}"
                yield _Place(found[1], found[2], where, f"take line {number} out of {file}")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _credentials(situation: Situation) -> Iterator[Finding]:
    """What replaces the login that is there, perhaps left from another tool."""
    folder = config_folder(situation.environ, situation.home)
    has_login = (folder / ".credentials.json").exists()
    for variable in TOKENS[:2]:
        if situation.given.get(variable) and has_login:
            message = f"{variable} {situation.where(variable)} is used in the place of Claude Code's login"
            yield Finding("settings", "warn", message, situation.taken_out(variable))


def _models(situation: Situation) -> Iterator[Finding]:
    for file in situation.settings.files:
        model = file.values.get("model")
        if isinstance(model, str) and is_foreign(model):
            message = (
                f"{model} in {file.path} is the default model of every `claude`, with and without the router"
            )
            remedy = f'pick Default in /model, or take "model" out of {file.path}'
            yield Finding("settings", "warn", message, remedy)
    for variable in MODELS:
        if (model := situation.given.get(variable)) and is_foreign(model):
            message = (
                f"{variable} {situation.where(variable)} is {model}, which a plain `claude` does not have"
            )
            yield Finding("settings", "warn", message, situation.taken_out(variable))


def _clouds(situation: Situation) -> Iterator[Finding]:
    for variable, cloud in other_clouds(situation.given).items():
        message = f"{variable} {situation.where(variable)} has Claude Code ask {cloud}, which is not routed"
        yield Finding("settings", "fail", message, situation.taken_out(variable))


# gates


def gates(situation: Situation) -> Iterator[Finding]:
    """What Claude Code has, and has not, in the way in which it reaches the router now."""
    given = situation.given
    if clouds := other_clouds(given):
        variable, cloud = next(iter(clouds.items()))
        message = f"not looked at, since Claude Code asks {cloud}"
        yield Finding("gates", "warn", message, situation.taken_out(variable))
        return
    proxy = address_of(given.get(HTTPS_PROXY) or given.get("https_proxy") or "")
    base = address_of(given.get(BASE_URL) or "")
    if proxy is not None and is_here(proxy, situation.listeners):
        yield from _of_interception(situation, given, proxy)
    elif base is not None and is_here(base, situation.listeners):
        yield from _of_base_url(situation, given, base)
    else:
        via = default_via(situation.environ, situation.settings)
        message = f"a plain `claude` does not use the router; `signalbox claude` does ({via}: "
        yield Finding("gates", "ok", f"{message}{features(via, given)})")
    asks_class = any(rule.match.request_class for rule in situation.rules.rules)
    hint = next(iter(HINTS))
    if asks_class and given.get(hint) != "1":
        message = f"rules ask for the class of a request, which a plain `claude` tells with {hint}=1 only"
        yield Finding("gates", "warn", message, f"set {hint}=1, or start it with `signalbox claude`")


def _of_interception(situation: Situation, given: dict[str, str], proxy: Address) -> Iterator[Finding]:
    yield Finding("gates", "ok", f"intercept by {proxy}: {features('intercept', given)}")
    direct = direct_hosts(given.get("no_proxy") or given.get("NO_PROXY", ""))
    if past := [entry for entry in direct if names(entry, ANTHROPIC_HOST, 443)]:
        message = f"NO_PROXY names {', '.join(past)}: requests go past the router"
        yield Finding("gates", "fail", message, f"take {', '.join(past)} out of NO_PROXY")
    bundle = given.get(CA_FILE)
    if not bundle:
        message = f"{CA_FILE} is not set: Claude Code does not trust the router's certificate"
        yield Finding("gates", "fail", message, f"set {CA_FILE} to mitmproxy-ca-cert.pem of the router")
    elif not Path(bundle).is_file():
        message = f"{CA_FILE} {situation.where(CA_FILE)} names {bundle}, which is not there"
        yield Finding("gates", "fail", message, situation.taken_out(CA_FILE))
    elif not _holds(Path(bundle), own := authority_folder(situation.home, situation.state) / CA):
        message = f"{bundle}, which {CA_FILE} names, does not hold {own}: Claude Code trusts no router"
        yield Finding("gates", "warn", message, f"set {CA_FILE}={own}, or add that to {bundle}")


def _holds(bundle: Path, certificate: Path) -> bool:
    """Whether a certificate stands in the file; true where there is none yet, or it cannot be read."""
    try:
        return certificate.read_bytes().strip() in bundle.read_bytes()
    except OSError:
        return True


def _of_base_url(situation: Situation, given: dict[str, str], base: Address) -> Iterator[Finding]:
    yield Finding("gates", "ok", f"base-url {base}: {features('base-url', given)}")
    proxy = next((name for name in PROXIES if given.get(name)), None)
    direct = direct_hosts(given.get("no_proxy") or given.get("NO_PROXY", ""))
    if proxy is not None and not any(names(entry, base.host, base.port) for entry in direct):
        message = f"{proxy} {situation.where(proxy)} is a proxy that Claude Code asks for the router, too"
        yield Finding("gates", "fail", message, f"add {base.host} to NO_PROXY")
    for variable, wanted in BEHIND_BASE_URL.items():
        if not given.get(variable):
            feature = _BEHIND[variable]
            message = f"behind a base URL Claude Code has no {feature} without {variable}={wanted}"
            yield Finding("gates", "warn", message, f"set {variable}={wanted}, or use `signalbox claude`")
    if given.get("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC") and situation.rules.lists_models:
        variable = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
        message = (
            f"{variable} {situation.where(variable)} keeps Claude Code from reading the router's model list"
        )
        yield Finding("gates", "warn", message, situation.taken_out(variable))
