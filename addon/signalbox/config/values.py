"""Text into what it means: one function for each kind of scalar in rules.yaml.

Each raises ValueError; its text, if any, says what is wrong and never repeats the value, which may come
from the environment. The patterns are also those of the JSON Schema.
"""

import fnmatch
import ipaddress
import re
import urllib.parse
import zoneinfo
from pathlib import Path
from typing import Literal

from . import regexes
from .regexes import Regex
from .rules import Glob, Listen, Secret, Target, Url

NAME = r"[A-Za-z0-9_-]+"
WHOLE = r"\d{1,15}"
NUMBER = r"\d{1,15}(\.\d{1,9})?"
DURATION = r"\d{1,9}(\.\d{1,9})?(ms|s|m|h|d)|0"
SIZE = r"\d{1,9}(\.\d{1,9})?(B|KB|MB|GB)"
COUNT = r"\d{1,15}(\.\d{1,9})?[kKmM]?"
COMPARISON = r"(>=|<=|>|<)\s*(\d{1,9}(?:\.\d{1,9})?)"
WINDOW = rf"{NAME}\.[^\s]+"
LISTEN = r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}"
WEEKTIME = r"(monday|tuesday|wednesday|thursday|friday|saturday|sunday) ([01]\d|2[0-3]):[0-5]\d"
HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
LEDGER = r"sqlite|[a-z][a-z0-9_+]*://.*"
PATH = r"/[!-~]*"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FRAMING = {"connection", "content-length", "transfer-encoding"}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_REFERENCE = re.compile(
    r"(?:Bearer\s+)?(?:"
    r"\$(?:env:)?(?P<a>NAME)|\$\((?P<b>NAME)\)|%(?P<c>NAME)%|env:(?P<d>NAME)|os\.environ/(?P<e>NAME)"
    r"|\{\s*env:\s*(?P<f>NAME)\s*\}|\{\{\s*(?P<g>NAME)\s*\}\}"
    r")".replace("NAME", "[A-Za-z_][A-Za-z0-9_]*"),
    re.ASCII | re.IGNORECASE,
)
"""How shells, Windows and other programs' settings name a variable."""
_GLOB_CLASS = re.compile(r"\[!?\]?+[^\]]*\]")


def text(written: str) -> str:
    return _full(r"(?s).*\S.*", written)[0]


def any_text(written: str) -> str:
    return written


def name(written: str) -> str:
    return _full(NAME, written)[0]


def flag(written: str) -> bool:
    return _full("true|false", written)[0] == "true"


def whole(written: str) -> int:
    return int(_full(WHOLE, written)[0])


def at_least_one(written: str) -> int:
    if (value := whole(written)) < 1:
        raise ValueError
    return value


def number(written: str) -> float:
    return float(_full(NUMBER, written)[0])


def duration(written: str) -> float:
    """Seconds."""
    found = _full(DURATION, written)
    unit: str = found[2] or "s"
    return float(written.removesuffix(unit)) * _SECONDS[unit]


def size(written: str) -> int:
    """Bytes."""
    unit = _full(SIZE, written)[2]
    return int(float(written.removesuffix(unit)) * _BYTES[unit])


def count(written: str) -> int:
    """`500k`, `1.5M`: thousands and millions, a whole number once multiplied."""
    _full(COUNT, written)
    unit = written[-1].lower() if written[-1].isalpha() else ""
    whole_part, _, fraction = (written[:-1] if unit else written).partition(".")
    value, rest = divmod(int(whole_part + fraction) * _TIMES[unit], int("1" + "0" * len(fraction)))
    if rest:
        raise ValueError
    return value


def glob(written: str) -> Glob:
    if not written:
        raise ValueError
    if "[" in _GLOB_CLASS.sub("", written):
        raise ValueError('"[" is not closed')
    return Glob(written, re.compile(fnmatch.translate(written), re.IGNORECASE))


def model_glob(written: str) -> Glob:
    """A glob on the requested model, of which `[1m]` is ignored (it would read as one of `1`, `m`)."""
    return glob(written[:-4] if written.lower().endswith("[1m]") else written)


def glob_text(written: str) -> str:
    return glob(written).text


def regex(written: str) -> Regex:
    if not written:
        raise ValueError
    return regexes.parse(written)


def url(written: str) -> Url:
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


def _url_parts(written: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(written)
        parts.port  # noqa: B018  reading it is the check
    except ValueError:
        raise ValueError("its host or port is not one") from None
    return parts


def path(written: str) -> str:
    if "?" in written or "#" in written:
        raise ValueError('"?" and "#" do not belong in it: use query')
    return _full(PATH, written)[0]


def location(written: str) -> Path:
    """A file or folder; `~` is the user's home."""
    try:
        return Path(text(written)).expanduser()
    except RuntimeError as error:  # no such user, or nobody's home is known
        raise ValueError(str(error)) from None


def secret(written: str) -> Secret:
    """A key as it will stand in a header. One that cannot stand there has a reason in its place."""
    value = written.strip()
    if not value:
        return Secret(None, "the key is empty")
    if _REFERENCE.fullmatch(value):
        return Secret(None, "the key is the name of a variable instead of its value")
    if not _may_stand_in_header(value):
        return Secret(None, "the key holds characters that a header cannot carry")
    return Secret(value)


def no_reference(written: str) -> None:
    """Refuses a variable that is named as elsewhere: `$NAME`, `%NAME%`, `env:NAME`, also after `Bearer`."""
    if found := _REFERENCE.fullmatch(written.strip()):
        raise ValueError(f"a variable is written ${{{found.group(found.lastgroup or 0)}}} here")


def client_secret(written: str) -> str:
    resolved = secret(written)
    if resolved.value is None:
        raise ValueError(resolved.reason)
    return resolved.value


def header_name(written: str) -> str:
    if _full(HEADER_NAME, written)[0].lower() in _FRAMING:
        raise ValueError("this header belongs to the connection")
    return written


def header_value(written: str) -> str:
    if not _may_stand_in_header(written):
        raise ValueError("it holds a line break or a character that a header cannot carry")
    return written.strip()


def token(written: str) -> str:
    return _full(HEADER_NAME, written)[0]


def target(written: str) -> Target:
    """`provider` or `provider/model`; the provider ends at the first slash."""
    provider, slash, model = written.partition("/")
    if not provider or (slash and not model.strip()):
        raise ValueError
    return Target(provider, model.strip() or None)


def status(written: str) -> int:
    value = whole(written)
    if not 400 <= value <= 599:
        raise ValueError
    return value


def outcome(written: str) -> str:
    return written if written in ("auth", "connect", "timeout", "stream_error") else str(status(written))


def window(written: str) -> str:
    return _full(WINDOW, written)[0]


def comparison(written: str) -> tuple[str, float]:
    found = _full(COMPARISON, written.strip().removesuffix("%"))
    return found[1], float(found[2])


def port_or_listener(written: str) -> int | str:
    return _port(int(written)) if re.fullmatch(r"\d{1,5}", written) else name(written)


def listen(written: str) -> Listen:
    host, _, port = _full(LISTEN, written)[0].rpartition(":")
    return Listen(_host(host.strip("[]")), _port(int(port)))


def host_name(written: str) -> str:
    """A name or an address as clients write it in `Host`, without the port."""
    return _host(written.strip("[]").lower().rstrip("."))


def week_start(written: str) -> tuple[int, int, int]:
    day, hour, minute = re.split("[ :]", _full(WEEKTIME, written.lower())[0])
    return _DAYS.index(day), int(hour), int(minute)


def timezone(written: str) -> str:
    if written != "local":
        try:
            zoneinfo.ZoneInfo(written)
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError from None
    return written


def ledger(written: str) -> str:
    return _full(LEDGER, written)[0]


def _full(pattern: str, written: str) -> re.Match[str]:
    if found := re.fullmatch(pattern, written, re.ASCII):
        return found
    raise ValueError


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


def _may_stand_in_header(value: str) -> bool:
    return re.fullmatch(r"[\t -~\xa0-\xff]*", value) is not None
