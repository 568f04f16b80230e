"""The environment in which Claude Code reaches the router. Pure: mappings in, mappings out.

Which variable does what in Claude Code 2.1.328 was tried: claude-code-tried.md, 2 (proxies), 4 (headers that
say what a request is for) and 8 (what overrides what).
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote, urlsplit

from signalbox.claude.settings import ClaudeSettings
from signalbox.config.rules import ANTHROPIC_HOST
from signalbox.routing.facts import PROJECT_HEADER

type Via = Literal["intercept", "base-url"]
"""How requests come to the router: it is the proxy of all that Claude Code asks, and decrypts what goes to
Anthropic; or it is Claude Code's base URL."""

BASE_URL = "ANTHROPIC_BASE_URL"
CUSTOM_HEADERS = "ANTHROPIC_CUSTOM_HEADERS"
_CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
CA_FILE = "NODE_EXTRA_CA_CERTS"
HINTS = {"CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1"}
"""Has Claude Code say what a request is for, which `match: {class: ...}` asks."""
BEHIND_BASE_URL = {"ENABLE_TOOL_SEARCH": "true", "CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING": "1"}
"""What a base URL that is not Anthropic's makes Claude Code switch off by itself."""
OTHER_CLOUDS = {
    "CLAUDE_CODE_USE_BEDROCK": "Amazon Bedrock",
    "CLAUDE_CODE_USE_VERTEX": "Google Vertex",
    "CLAUDE_CODE_USE_FOUNDRY": "Microsoft Foundry",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")

HTTPS_PROXY = "HTTPS_PROXY"

_HTTPS_PROXIES = (HTTPS_PROXY, "https_proxy")
_PROXIES = (*_HTTPS_PROXIES, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_DIRECT = ("NO_PROXY", "no_proxy")
_HEADER_VALUE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "") + " "


class ChildEnvironment(NamedTuple):
    changes: Mapping[str, str | None]
    """By variable, its value for Claude Code; None takes it out."""
    overrides: Mapping[str, str]
    """Variables for `env` of `--settings`: those of `changes` that a settings file would override. An empty
    value is how one is taken out there."""
    remarks: tuple[str, ...]
    """What of the user's own is not as it was, each one line."""

    def over(self, shell: Mapping[str, str]) -> dict[str, str]:
        """The whole environment."""
        changed = {**shell, **self.changes}
        return {name: value for name, value in changed.items() if value is not None}


def child_environment(
    via: Via,
    url: str,
    ca: Path | None,
    project: Path,
    shell: Mapping[str, str],
    settings: ClaudeSettings,
    *,
    overrides_settings: bool = True,
) -> ChildEnvironment:
    """`url` is the router's, without a slash at the end; `ca` a file of certificates for `intercept`.
    `overrides_settings`: whether Claude Code is given `overrides`; without, what the settings files say of
    those variables counts.

    What the user has set wins, but for the base URL and, where the router intercepts, the proxy and the file
    of certificates.
    """
    given = {**shell, **settings.env}
    defaults = dict(HINTS)
    if via == "intercept":
        changes = dict(_intercepted(url, ca, given))
    else:
        defaults |= BEHIND_BASE_URL
        changes = {BASE_URL: url, **_past_proxies(given), **dict.fromkeys(leading_back(given, url))}
    changes |= {name: value for name, value in defaults.items() if not given.get(name)}
    changes[CUSTOM_HEADERS] = with_project(given.get(CUSTOM_HEADERS, ""), project)
    changes = {name: value for name, value in changes.items() if given.get(name) != value}
    overrides = {name: value or "" for name, value in changes.items() if name in settings.env}
    files_count = () if overrides_settings else [one for one in overrides if one not in settings.managed_env]
    return ChildEnvironment(changes, overrides, tuple(_remarks(via, url, given, settings, files_count)))


def default_via(shell: Mapping[str, str], settings: ClaudeSettings) -> Via:
    """`intercept`, unless that cannot work: the administrator sets the proxy, or the user has one that the
    router cannot use in turn (it can use `http://` only)."""
    given = {**shell, **settings.env}
    if any(name in settings.managed_env for name in (*_HTTPS_PROXIES, CA_FILE)):
        return "base-url"
    proxy = next((given[name] for name in _PROXIES if given.get(name)), "http://")
    return "intercept" if proxy.startswith("http://") or "://" not in proxy else "base-url"


def other_clouds(given: Mapping[str, str]) -> dict[str, str]:
    """By the variable that says so, the clouds that Claude Code asks in the place of Anthropic."""
    off = ("", "0", "false")
    return {name: cloud for name, cloud in OTHER_CLOUDS.items() if given.get(name, "").lower() not in off}


def features(via: Via, given: Mapping[str, str]) -> str:
    """What first-party features Claude Code has, on one line, unless it asks another cloud."""
    has = {
        "Remote Control": via == "intercept",
        "tool search": given.get("ENABLE_TOOL_SEARCH", "").lower() not in ("false", "0"),
        "1M": True,
        "quota": True,
    }
    return "  ".join(f"{name} {'✓' if there else '✗'}" for name, there in has.items())


def names_client(clients: Mapping[str, str], given: Mapping[str, str]) -> bool:
    """Whether Claude Code presents a client's secret, which a router with clients asks for."""
    presented = "\n".join(given.get(name, "") for name in (*_CREDENTIALS, CUSTOM_HEADERS))
    return not clients or any(secret in presented for secret in clients.values())


def with_project(headers: str, project: Path) -> str:
    """The user's headers, one a line, and one that names the folder, unless there is such a one."""
    lines = [line.strip() for line in headers.splitlines() if line.strip()]
    if not any(line.partition(":")[0].strip().lower() == PROJECT_HEADER for line in lines):
        lines.append(f"{PROJECT_HEADER}: {encoded_path(project)}")
    return "\n".join(lines)


def encoded_path(path: Path) -> str:
    """The path as the value of a header: percent-encoded where it is not printable ASCII, or `%` itself."""
    value = quote(str(path).encode("utf-8", "surrogateescape"), safe=_HEADER_VALUE)
    return value.removesuffix(" ") + "%20" if value.endswith(" ") else value


def router_environment(shell: Mapping[str, str], settings: ClaudeSettings, url: str) -> dict[str, str]:
    """The environment of a router of this session, which is at `url`: the proxy that Claude Code had becomes
    its own, unless that is the router itself, as one that ran before may have left it."""
    given = {**shell, **settings.env}
    found = dict(shell) | {name: given[name] for name in (*_PROXIES, *_DIRECT) if name in given}
    for name in leading_back(given, url):
        del found[name]
    if not any(found.get(name) for name in _PROXIES[:4]):
        everything = found.get("ALL_PROXY") or found.get("all_proxy")
        if everything and everything.startswith("http://"):
            found[HTTPS_PROXY] = everything
    return found


def leading_back(given: Mapping[str, str], url: str) -> list[str]:
    """Variables whose proxy is the router at `url`."""
    return [name for name in _PROXIES if _address(given.get(name, "")) == _address(url)]


def trusted_files(shell: Mapping[str, str], settings: ClaudeSettings) -> tuple[Path, ...]:
    """Files of certificates that Claude Code trusts beside those it knows, such as a company's."""
    given = {**shell, **settings.env}
    return tuple(Path(given[name]) for name in (CA_FILE, "SSL_CERT_FILE") if given.get(name))


def _intercepted(url: str, ca: Path | None, given: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    yield BASE_URL, None
    yield CA_FILE, str(ca)
    for name in _HTTPS_PROXIES:
        if name == HTTPS_PROXY or given.get(name):
            yield name, url
    for name in ("ALL_PROXY", "all_proxy"):
        if name in given:
            yield name, None
    for name in _DIRECT:
        if given.get(name):
            yield (
                name,
                ",".join(entry for entry in _entries(given[name]) if not _names_anthropic(entry)) or None,
            )


def _past_proxies(given: Mapping[str, str]) -> dict[str, str | None]:
    """A proxy of the environment would be asked for the router, too."""
    if not any(given.get(name) for name in _PROXIES):
        return {}
    written = next((given[name] for name in _DIRECT if given.get(name)), "")
    entries = _entries(written)
    if "*" in entries:
        return {}
    value = ",".join([*entries, *(host for host in LOOPBACK if host not in entries)])
    return {name: value for name in _DIRECT if name == _DIRECT[0] or given.get(name)}


def _entries(written: str) -> list[str]:
    return [entry for entry in written.replace(",", " ").split() if entry]


def _names_anthropic(entry: str) -> bool:
    """Whether an entry of NO_PROXY covers Anthropic's host: it is the host, a domain above it, or all."""
    name = entry.lower().rpartition(":")[0] if entry.rpartition(":")[2].isdigit() else entry.lower()
    name = name.lstrip("*").lstrip(".")
    return not name or name == ANTHROPIC_HOST or ANTHROPIC_HOST.endswith(f".{name}")


def _remarks(
    via: Via, url: str, given: Mapping[str, str], settings: ClaudeSettings, files_count: Collection[str]
) -> Iterator[str]:
    if (own := given.get(BASE_URL)) and own.rstrip("/") != url and BASE_URL not in files_count:
        yield f"{BASE_URL} {_of(BASE_URL, settings)}is not used: {_without_secrets(own)}"
    if via == "intercept":
        back = leading_back(given, url)
        name = next((name for name in _PROXIES if given.get(name) and name not in back), None)
        if name is not None and not (name in _HTTPS_PROXIES and name in files_count):
            yield f"requests leave through your proxy, {_without_secrets(given[name])}"
        entries = [
            one for name in _DIRECT if name not in files_count for one in _entries(given.get(name, ""))
        ]
        past = [one for one in entries if _names_anthropic(one)]
        if past:
            yield f"NO_PROXY is without {', '.join(dict.fromkeys(past))}, which would lead past the router"
    for name in (*settings.managed_env,):
        if name == BASE_URL or (via == "intercept" and name in (*_HTTPS_PROXIES, CA_FILE)):
            yield f"your administrator sets {name} in {settings.source_of(name)}: it may lead past the router"
    for name, cloud in other_clouds(given).items():
        yield f"{name} {_of(name, settings)}is set: Claude Code asks {cloud}, which is not routed"
    if files_count:
        named = ", ".join(f"{name} in {settings.source_of(name)}" for name in files_count)
        yield f"since you gave --settings, these count and not what the router needs: {named}"


def _of(variable: str, settings: ClaudeSettings) -> str:
    source = settings.source_of(variable)
    return f"in {source} " if source else "of your shell "


def _address(url: str) -> tuple[str, int] | None:
    """Host and port of a proxy, which may lack its scheme; the names of this machine are one host."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        return None
    return (LOOPBACK[0] if host in LOOPBACK else host, port) if host else None


def _without_secrets(url: str) -> str:
    """Without user name and password."""
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return "it is no URL"
