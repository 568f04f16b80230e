"""The kinds of scalars in rules.yaml: the name of each for people, its parser, and its JSON Schema.

The `type` aliases are the kinds; each names a function below that parses the text. These functions raise
ValueError. Its text, if any, says what is wrong and never repeats the value, which may come from the
environment. Every string may hold `${NAME}`, so every pattern of the JSON Schema allows that. Editors read
unquoted numbers and true/false as such, so the JSON Schema allows them where they are meant.
"""

import fnmatch
import ipaddress
import operator
import re
import urllib.parse
import zoneinfo
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from . import regexes
from .regexes import Regex
from .typespec import Reads, Refers

type Operator = Literal[">", ">=", "<", "<="]

NAME = r"[A-Za-z0-9_-]+"
WHOLE = r"\d{1,15}"
NUMBER = r"\d{1,15}(\.\d{1,9})?"
DURATION = r"\d{1,9}(\.\d{1,9})?(ms|s|m|h|d)|0"
SIZE = r"\d{1,9}(\.\d{1,9})?(B|KB|MB|GB)"
COUNT = r"\d{1,15}(\.\d{1,9})?[kKmM]?"
COMPARISON = r"(>=|<=|>|<)\s*(\d{1,9}(?:\.\d{1,9})?)"
CLAUDE = r"claude-[a-z0-9-]*[0-9][a-z0-9-]*"
WINDOW = rf"{NAME}\.[^\s]+"
LISTEN = r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}"
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = "|".join("".join(f"[{letter.upper()}{letter}]" for letter in day) for day in DAYS)  # in any case
WEEKTIME = rf"({_DAY}) ([01]\d|2[0-3]):[0-5]\d"
RESERVED_LABEL = r"none|fail-open|#[0-9]+"
"""Labels in `x-signalbox-rule` that are no names: no rule matched, the router failed, a rule has no name."""
OUTCOMES = ("auth", "connect", "timeout", "stream_error")
"""The labels of outcomes that are no statuses."""
HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SERVER = r"(?:[^@/\s]+@)?(?:\[[0-9A-Fa-f:.]+\]|[^:/@\[\]\s]*)(?::[0-9]+)?"
LEDGER = rf"sqlite|sqlite:///\S+|postgres(?:ql)?(?:\+psycopg)?://{_SERVER}/[^/?#\s]+(?:\?\S*)?"
PATH = r"/[!-~]*"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
_FRAMING = {"connection", "content-length", "transfer-encoding"}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_REFERENCE = re.compile(
    r"(?:Bearer\s+)?(?:"
    r"\$(?:env:)?(?P<a>NAME)|\$\((?P<b>NAME)\)|%(?P<c>NAME)%|env:(?P<d>NAME)|os\.environ/(?P<e>NAME)"
    r"|\{\s*env:\s*(?P<f>NAME)\s*\}|\{\{\s*(?P<g>NAME)\s*\}\}"
    r")".replace("NAME", "[A-Za-z_][A-Za-z0-9_]*"),
    re.ASCII | re.IGNORECASE,
)
"""Variables as shells, Windows and other programs write them."""
_PLACEHOLDER = re.compile(r"\{\s*(?!model\})[A-Za-z_][\w-]*\s*\}")
"""A name in braces other than `{model}`."""
_GLOB_CLASS = re.compile(r"\[!?\]?+[^\]]*\]")


class Glob(msgspec.Struct, frozen=True):
    """A case-insensitive glob (`*`, `?`, `[abc]`) over a whole text."""

    text: str
    pattern: re.Pattern[str]

    def matches(self, text: str) -> bool:
        return self.pattern.match(text) is not None


class Url(msgspec.Struct, frozen=True):
    """A base URL in parts. `path` is empty, or begins with a slash and does not end with one."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """The host, and the port if it is not the scheme's default; IPv6 in brackets."""
        usual = 443 if self.scheme == "https" else 80
        return _bracketed(self.host) if self.port == usual else f"{_bracketed(self.host)}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy on the way to a provider."""

    host: str
    port: int
    user: str = ""
    password: str = ""

    @property
    def address(self) -> str:
        """`proxy.example.com:3128`, for people too: without the credentials."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization (RFC 7617); None without credentials."""
        if not (self.user or self.password):
            return None
        return f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    def __repr__(self) -> str:
        return f"Proxy({self.address!r})"


class Command(msgspec.Struct, frozen=True):
    """A program that prints a secret, and the environment that it is given."""

    argv: tuple[str, ...]
    folder: Path
    environ: Mapping[str, str] = {}
    every: float | None = None
    """Seconds for which its output is valid; None if that is unknown."""

    def __repr__(self) -> str:
        return f"Command({self.argv[0]!r})"


class Secret(msgspec.Struct, frozen=True):
    """A key as resolved at load. `value` is None if it is unavailable; `reason` then says why."""

    value: str | None
    reason: str = ""
    command: Command | None = None
    """The command that printed it, if one did."""
    file: Path | None = None
    """The file that holds it, if one does."""

    @property
    def account(self) -> str:
        """Names the account that it belongs to: its source, which stays the same when it is renewed, else
        the secret itself. Never shown or sent."""
        if self.command is not None:
            return "\0".join(("command", *self.command.argv))
        return f"file\0{self.file}" if self.file is not None else self.value or ""

    def __repr__(self) -> str:
        return "Secret(***)" if self.value else f"Secret(reason={self.reason!r})"


class Listen(msgspec.Struct, frozen=True):
    host: str
    port: int


def string_schema(pattern: str = "") -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^({pattern})$|\$\{{"} if pattern else {"type": "string"}


def number_schema(pattern: str, least: int = 0, kind: str = "number") -> dict[str, Any]:
    return {"type": [kind, "string"], "minimum": least, "pattern": rf"^({pattern})$|\$\{{"}


def whole_schema(pattern: str, least: int = 0) -> dict[str, Any]:
    return number_schema(pattern, least, "integer")


PLAIN = {"type": ["string", "number", "boolean"]}
"""Any text: for editors an unquoted `5` or `true` is none."""
_LOOSE = {"type": [*PLAIN["type"], "null"]}


type Text = Annotated[str, Reads("text", parse_text, PLAIN)]
type RuleName = Annotated[
    str, Reads("the name of a rule", parse_rule_name, PLAIN | {"pattern": rf"^(?!({RESERVED_LABEL})$)"})
]
type SentModel = Annotated[str, Reads("the name of a model", parse_sent_model, PLAIN)]
type Loose = Annotated[str, Reads("text", parse_any_text, _LOOSE, shown=False)]
type Flag = Annotated[
    bool,
    Reads(
        "true or false",
        parse_flag,
        {"type": ["boolean", "string"], "pattern": r"^(true|false)$|\$\{"},
        words=("true", "false"),
    ),
]
type Whole = Annotated[int, Reads("a whole number", parse_whole, whole_schema(WHOLE))]
type AtLeastOne = Annotated[int, Reads("a whole number from 1", parse_at_least_one, whole_schema(WHOLE, 1))]
type Percent = Annotated[int, Reads("a whole number of percent", parse_whole, whole_schema(WHOLE))]
type Dollars = Annotated[float, Reads("a number of dollars", parse_number, number_schema(NUMBER))]
type Duration = Annotated[
    float,
    Reads(
        "a duration such as 300ms, 60s, 5m, 1h or 7d",
        parse_duration,
        string_schema(DURATION) | {"type": ["string", "integer"], "maximum": 0},
    ),
]
type Size = Annotated[int, Reads("a size such as 512KB, 10MB or 1GB", parse_size, string_schema(SIZE))]
type Count = Annotated[int, Reads("a count such as 2000, 500k or 1.5M", parse_count, whole_schema(COUNT))]
type GlobText = Annotated[Glob, Reads("a glob", parse_glob, PLAIN)]
type ModelGlob = Annotated[Glob, Reads("a glob", parse_model_glob, PLAIN)]
type ClaudeModel = Annotated[
    str,
    Reads(
        "the full id of a Claude model such as claude-sonnet-4-6", parse_claude_model, string_schema(CLAUDE)
    ),
]
type RegexText = Annotated[Regex, Reads("a regular expression", parse_regex, PLAIN)]
type BaseUrl = Annotated[
    Url,
    Reads(
        "a URL such as https://api.example.com", parse_url, string_schema(r"https?://[^\s?#@]+"), shown=False
    ),
]
type UrlPath = Annotated[str, Reads("a path that begins with /", parse_path, string_schema(PATH))]
type Location = Annotated[Path, Reads("a file or folder", parse_location, PLAIN)]
type KeyText = Annotated[Secret, Reads("a key", parse_secret, PLAIN, shown=False, written=refuse_reference)]
type ClientSecret = Annotated[
    str, Reads("a secret", parse_client_secret, PLAIN, shown=False, written=refuse_reference)
]
type HeaderName = Annotated[
    str,
    Reads("the name of a header", parse_header_name, {"type": "string", "pattern": f"^{HEADER_NAME}$"}),
]
type LowerHeaderName = Annotated[
    str,
    Reads("the name of a header", parse_lower_header_name, {"type": "string", "pattern": f"^{HEADER_NAME}$"}),
]
type HeaderValue = Annotated[
    str, Reads("the value of a header", parse_header_value, _LOOSE, shown=False, written=refuse_reference)
]
type Beta = Annotated[
    str,
    Reads("the name of a beta", parse_token, string_schema(HEADER_NAME) | {"type": ["string", "integer"]}),
]
type ErrorStatus = Annotated[
    int,
    Reads("a status from 400 to 599", parse_status, whole_schema(r"[45]\d\d", 400) | {"maximum": 599}),
]
type OutcomeLabel = Annotated[
    str,
    Reads(
        "auth, connect, timeout, stream_error or a status from 400 to 599",
        parse_outcome,
        whole_schema("|".join((*OUTCOMES, r"[45]\d\d")), 400) | {"maximum": 599},
        words=OUTCOMES,
    ),
]
type NewName = Annotated[
    str,
    Reads(
        "a name of letters, digits, _ and -",
        parse_name,
        {"type": "string", "pattern": f"^{NAME}$"},
    ),
]
type ProviderName = Annotated[
    str, Reads("a provider", parse_text, PLAIN), Refers("providers", "provider", str)
]
type ProviderWindow = Annotated[
    tuple[str, str],
    Reads("PROVIDER.WINDOW", parse_window, {"type": "string", "pattern": f"^{WINDOW}$"}),
    Refers("providers", "provider", operator.itemgetter(0)),
]
type Comparison = Annotated[
    tuple[Operator, float],
    Reads('a comparison such as ">80"', parse_comparison, string_schema(rf"\s*{COMPARISON}\s*%?\s*")),
]
type Port = Annotated[
    int | str,
    Reads(
        "a port or the name of a listener",
        parse_port_or_listener,
        {"type": ["integer", "string"], "minimum": 1, "maximum": 65535},
    ),
    Refers("listen", "listener", lambda port: port if isinstance(port, str) else None),
]
type ListenAddress = Annotated[
    Listen, Reads("HOST:PORT such as 127.0.0.1:8082", parse_listen, string_schema(LISTEN))
]
type HostName = Annotated[
    str,
    Reads(
        "the name of a host such as router.lan",
        parse_host_name,
        string_schema(r"[^\s:/]+|\[?[0-9A-Fa-f:.]+\]?") | {"type": ["string", "number"]},
    ),
]
type WeekTime = Annotated[
    tuple[int, int, int],
    Reads("a day and time such as monday 00:00", parse_week_start, string_schema(WEEKTIME)),
]
type Timezone = Annotated[
    str, Reads("local or a time zone such as Europe/Berlin", parse_timezone, string_schema())
]
type LedgerUrl = Annotated[
    str,
    Reads(
        "sqlite, or a URL such as postgresql+psycopg://user:password@host/database",
        parse_ledger,
        string_schema(LEDGER),
        shown=False,
    ),
]


def parse_text(written: str) -> str:
    return _full(r"(?s).*\S.*", written)[0]


def parse_rule_name(written: str) -> str:
    if re.fullmatch(RESERVED_LABEL, written, re.ASCII):
        raise ValueError("none, fail-open and #NUMBER have meanings of their own in x-signalbox-rule")
    return parse_text(written)


def parse_sent_model(written: str) -> str:
    """The model of a target, in which `{model}` stands for the requested one."""
    if _PLACEHOLDER.search(written):
        raise ValueError("unknown placeholder, did you mean {model}?")
    return parse_text(written).strip()


def parse_any_text(written: str) -> str:
    return written


def parse_name(written: str) -> str:
    return _full(NAME, written)[0]


def parse_flag(written: str) -> bool:
    return _full("true|false", written)[0] == "true"


def parse_whole(written: str) -> int:
    return int(_full(WHOLE, written)[0])


def parse_at_least_one(written: str) -> int:
    if (value := parse_whole(written)) < 1:
        raise ValueError
    return value


def parse_number(written: str) -> float:
    return float(_full(NUMBER, written)[0])


def parse_duration(written: str) -> float:
    """Seconds."""
    found = _full(DURATION, written)
    unit: str = found[2] or "s"
    return float(written.removesuffix(unit)) * _SECONDS[unit]


def parse_size(written: str) -> int:
    """Bytes."""
    unit = _full(SIZE, written)[2]
    return int(float(written.removesuffix(unit)) * _BYTES[unit])


def parse_count(written: str) -> int:
    """`500k`, `1.5M`: thousands and millions; the result must be a whole number."""
    _full(COUNT, written)
    unit = written[-1].lower() if written[-1].isalpha() else ""
    whole_part, _, fraction = (written[:-1] if unit else written).partition(".")
    value, rest = divmod(int(whole_part + fraction) * _TIMES[unit], int("1" + "0" * len(fraction)))
    if rest:
        raise ValueError
    return value


def parse_glob(written: str) -> Glob:
    if not written:
        raise ValueError
    if "[" in _GLOB_CLASS.sub("", written):
        raise ValueError('"[" is not closed')
    return Glob(written, re.compile(fnmatch.translate(written), re.IGNORECASE))


def parse_model_glob(written: str) -> Glob:
    """A glob on the requested model. A final `[1m]` is dropped: as a glob it would mean `1` or `m`."""
    return parse_glob(written[:-4] if written.lower().endswith("[1m]") else written)


def parse_claude_model(written: str) -> str:
    return _full(CLAUDE, written)[0]


def parse_regex(written: str) -> Regex:
    if not written:
        raise ValueError
    return regexes.checked_regex(written)


def parse_url(written: str) -> Url:
    if not re.fullmatch(r"[!-~]+", written):
        raise ValueError("it holds a space or a character that URLs do not have")
    parts = _url_parts(written)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("user name and password do not belong in it: use key")
    if parts.query or parts.fragment or written[-1] in "?#":
        raise ValueError('"?" and "#" do not belong in it: use query')
    scheme: Literal["https", "http"] = "https" if parts.scheme == "https" else "http"
    if not parts.hostname:
        raise ValueError("it has no host")
    port = (443 if scheme == "https" else 80) if parts.port is None else parts.port
    return Url(scheme, _host(parts.hostname), _port(port), parts.path.rstrip("/"))


def parse_proxy(written: str) -> Proxy | Literal["none"]:
    if written == "none":
        return "none"
    if not re.fullmatch(r"[!-~]+", written):
        raise ValueError("it holds a space or a character that URLs do not have")
    parts = _url_parts(written)
    if parts.scheme != "http":
        raise ValueError("it must begin with http://")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("nothing follows its port, and in a password / ? # @ are written %2F %3F %23 %40")
    if not parts.hostname:
        raise ValueError("it has no host")
    user, password = (urllib.parse.unquote(one or "") for one in (parts.username, parts.password))
    if ":" in user or not all(map(_fits_header, (user, password))):
        raise ValueError("its user name or password holds a character that cannot be sent")
    return Proxy(_host(parts.hostname), _port(80 if parts.port is None else parts.port), user, password)


def _url_parts(written: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(written)
        parts.port  # noqa: B018  reading it is the check
    except ValueError:
        raise ValueError("its host or port is not one") from None
    return parts


def parse_path(written: str) -> str:
    if "?" in written or "#" in written:
        raise ValueError('"?" and "#" do not belong in it: use query')
    return _full(PATH, written)[0]


def parse_location(written: str) -> Path:
    """A file or folder; `~` is the user's home."""
    try:
        return Path(parse_text(written)).expanduser()
    except RuntimeError as error:  # no such user, or an unknown home
        raise ValueError(str(error)) from None


def parse_secret(written: str) -> Secret:
    """A key as it is sent in a header. An unusable key has a reason instead of a value."""
    value = written.strip()
    if not value:
        return Secret(None, "the key is empty")
    if _REFERENCE.fullmatch(value):
        return Secret(None, "the key is the name of a variable instead of its value")
    if not _fits_header(value):
        return Secret(None, "the key holds characters that a header cannot carry")
    return Secret(value)


def refuse_reference(written: str) -> None:
    """Refuses variables in another program's syntax: `$NAME`, `%NAME%`, `env:NAME`, also after `Bearer`."""
    if found := _REFERENCE.fullmatch(written.strip()):
        raise ValueError(f"a variable is written ${{{found.group(found.lastgroup or 0)}}} here")


def parse_client_secret(written: str) -> str:
    resolved = parse_secret(written)
    if resolved.value is None:
        raise ValueError(resolved.reason)
    return resolved.value


def parse_header_name(written: str) -> str:
    if _full(HEADER_NAME, written)[0].lower() in _FRAMING:
        raise ValueError("this header belongs to the connection")
    return written


def parse_lower_header_name(written: str) -> str:
    return parse_header_name(written).lower()


def parse_header_value(written: str) -> str:
    if not _fits_header(written):
        raise ValueError("it holds a line break or a character that a header cannot carry")
    return written.strip()


def parse_token(written: str) -> str:
    return _full(HEADER_NAME, written)[0]


def parse_status(written: str) -> int:
    value = parse_whole(written)
    if not 400 <= value <= 599:
        raise ValueError
    return value


def parse_outcome(written: str) -> str:
    return written if written in OUTCOMES else str(parse_status(written))


def parse_window(written: str) -> tuple[str, str]:
    """(provider, window)"""
    provider, _, window = _full(WINDOW, written)[0].partition(".")
    return provider, window


def parse_comparison(written: str) -> tuple[Operator, float]:
    found = _full(COMPARISON, written.strip().removesuffix("%").rstrip())
    sign: Any = found[1]
    return sign, float(found[2])


def parse_port_or_listener(written: str) -> int | str:
    return _port(int(written)) if re.fullmatch(r"\d{1,5}", written) else parse_name(written)


def parse_listen(written: str) -> Listen:
    host, _, port = _full(LISTEN, written)[0].rpartition(":")
    return Listen(_host(host.strip("[]")), _port(int(port)))


def parse_host_name(written: str) -> str:
    """A host name or address as clients write it in `Host`, without the port."""
    return _host(written.strip("[]").lower().rstrip("."))


def parse_week_start(written: str) -> tuple[int, int, int]:
    day, hour, minute = re.split("[ :]", _full(WEEKTIME, written)[0])
    return DAYS.index(day.lower()), int(hour), int(minute)


def parse_timezone(written: str) -> str:
    if written != "local":
        try:
            zoneinfo.ZoneInfo(written)
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError from None
    return written


def parse_ledger(written: str) -> str:
    return _full(LEDGER, written)[0]


def _full(pattern: str, written: str) -> re.Match[str]:
    if found := re.fullmatch(pattern, written, re.ASCII):
        return found
    raise ValueError


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return port


def _host(host: str) -> str:
    if not (_HOST.fullmatch(host) or _is_ipv6(host)):
        raise ValueError("its host is not a host name")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _fits_header(value: str) -> bool:
    return re.fullmatch(r"[\t -~\xa0-\xff]*", value) is not None
