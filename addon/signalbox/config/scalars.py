"""The kinds of scalars in rules.yaml: what people call each, how it is read, and its JSON Schema.

Every string may hold `${NAME}`, so every pattern lets that through; editors read unquoted numbers and
true/false as such, so these are let through where they are meant.
"""

import operator
from pathlib import Path
from typing import Annotated, Any

from . import regexes, rules, values
from .shapes import Reads, Refers


def _text(pattern: str = "") -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^({pattern})$|\$\{{"} if pattern else {"type": "string"}


def _number(pattern: str, least: int = 0) -> dict[str, Any]:
    return {"type": ["number", "string"], "minimum": least, "pattern": rf"^({pattern})$|\$\{{"}


_LOOSE = {"type": ["string", "number", "boolean", "null"]}

type Text = Annotated[str, Reads("text", values.text, _text())]
type Loose = Annotated[str, Reads("text", values.any_text, _LOOSE, shown=False)]
type Flag = Annotated[
    bool,
    Reads("true or false", values.flag, {"type": ["boolean", "string"], "pattern": r"^(true|false)$|\$\{"}),
]
type Whole = Annotated[int, Reads("a whole number", values.whole, _number(values.WHOLE))]
type AtLeastOne = Annotated[
    int, Reads("a whole number from 1", values.at_least_one, _number(values.WHOLE, 1))
]
type Percent = Annotated[int, Reads("a whole number of percent", values.whole, _number(values.WHOLE))]
type Dollars = Annotated[float, Reads("a number of dollars", values.number, _number(values.NUMBER))]
type Duration = Annotated[
    float,
    Reads(
        "a duration such as 300ms, 60s, 5m, 1h or 7d",
        values.duration,
        _text(values.DURATION) | {"type": ["string", "integer"], "maximum": 0},
    ),
]
type Size = Annotated[int, Reads("a size such as 512KB, 10MB or 1GB", values.size, _text(values.SIZE))]
type Count = Annotated[int, Reads("a count such as 2000, 500k or 1.5M", values.count, _number(values.COUNT))]
type GlobText = Annotated[rules.Glob, Reads("a glob", values.glob, _text())]
type GlobKey = Annotated[str, Reads("a glob", values.glob_text, _text())]
type ModelGlob = Annotated[rules.Glob, Reads("a glob", values.model_glob, _text())]
type Regex = Annotated[regexes.Regex, Reads("a regular expression", values.regex, _text())]
type BaseUrl = Annotated[
    rules.Url,
    Reads("a URL such as https://api.example.com", values.url, _text(r"https?://[^\s?#@]+"), shown=False),
]
type UrlPath = Annotated[str, Reads("a path that begins with /", values.path, _text(values.PATH))]
type Location = Annotated[Path, Reads("a file or folder", values.location, _text())]
type KeyText = Annotated[
    rules.Secret, Reads("a key", values.secret, _text(), shown=False, written=values.no_reference)
]
type ClientSecret = Annotated[
    str, Reads("a secret", values.client_secret, _text(), shown=False, written=values.no_reference)
]
type HeaderName = Annotated[
    str,
    Reads(
        "the name of a header", values.header_name, {"type": "string", "pattern": f"^{values.HEADER_NAME}$"}
    ),
]
type HeaderValue = Annotated[
    str, Reads("the value of a header", values.header_value, _LOOSE, shown=False, written=values.no_reference)
]
type Beta = Annotated[str, Reads("the name of a beta", values.token, _text(values.HEADER_NAME))]
type Status = Annotated[
    int,
    Reads("a status from 400 to 599", values.status, _number(r"[45]\d\d", 400) | {"maximum": 599}),
]
type Outcome = Annotated[
    str,
    Reads(
        "auth, connect, timeout, stream_error or a status from 400 to 599",
        values.outcome,
        _number(r"auth|connect|timeout|stream_error|[45]\d\d", 400) | {"maximum": 599},
    ),
]
type NewName = Annotated[
    str,
    Reads(
        "a name of letters, digits, _ and -",
        values.name,
        {"type": "string", "pattern": f"^{values.NAME}$"},
    ),
]
type ProviderName = Annotated[
    str, Reads("a provider", values.text, _text()), Refers("providers", "provider", str)
]
type TargetText = Annotated[
    rules.Target,
    Reads("provider or provider/model", values.target, _text(r"[A-Za-z0-9_-]+(/.+)?")),
    Refers("providers", "provider", operator.attrgetter("provider")),
]
type Window = Annotated[
    str,
    Reads("PROVIDER.WINDOW", values.window, {"type": "string", "pattern": f"^{values.WINDOW}$"}),
    Refers("providers", "provider", lambda window: window.partition(".")[0]),
]
type Comparison = Annotated[
    tuple[str, float],
    Reads('a comparison such as ">80"', values.comparison, _text(rf"\s*{values.COMPARISON}\s*%?\s*")),
]
type Port = Annotated[
    int | str,
    Reads(
        "a port or the name of a listener",
        values.port_or_listener,
        {"type": ["integer", "string"], "minimum": 1, "maximum": 65535},
    ),
    Refers("listen", "listener", lambda port: port if isinstance(port, str) else None),
]
type Address = Annotated[
    rules.Listen, Reads("HOST:PORT such as 127.0.0.1:8082", values.listen, _text(values.LISTEN))
]
type HostName = Annotated[
    str,
    Reads("the name of a host such as router.lan", values.host_name, _text(r"[^\s:/]+|\[?[0-9A-Fa-f:.]+\]?")),
]
type WeekTime = Annotated[
    tuple[int, int, int],
    Reads("a day and time such as monday 00:00", values.week_start, _text(values.WEEKTIME)),
]
type Timezone = Annotated[str, Reads("local or a time zone such as Europe/Berlin", values.timezone, _text())]
type LedgerUrl = Annotated[
    str, Reads("sqlite or an SQLAlchemy URL", values.ledger, _text(values.LEDGER), shown=False)
]
