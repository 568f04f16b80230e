"""`.env` files of other routers, and the settings that several of them have."""

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from signalbox.config.secrets import dotenv_settings
from signalbox.migrate.form import Migration, SourceError, duration

TIERS = ("haiku", "sonnet", "opus")
LEVELS = {
    "trace": "debug", "debug": "debug", "verbose": "debug", "info": "info", "warn": "warn", "warning": "warn",
    "error": "error", "critical": "error", "fatal": "error", "silent": "silent", "off": "silent",
}  # fmt: skip
_LOG_FILES = ("LOG_FILE", "LOG_PATH", "LOG_DIR", "LOG_FILE_PATH", "CLAUDE_PROXY_LOG_FILE")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TOKENS = re.compile(r"([\d_,]+(?:\.\d+)?)\s*([kmb]?)(?:illion)?(?: *tokens)?", re.IGNORECASE)


class Environment:
    """The settings of one file. Each is taken by name; what is left over has no counterpart."""

    def __init__(self, text: str) -> None:
        """Raises SourceError where a line is no setting."""
        self._values: dict[str, str] = {}
        self._lines: dict[str, int] = {}
        self._taken: set[str] = set()
        for line, name, value in dotenv_settings(text):
            if name is None:
                raise SourceError("expected NAME=VALUE", line)
            self._values[name] = _VARIABLE.sub(self._referred, value)
            self._lines[name] = line

    def __contains__(self, name: str) -> bool:
        """Whether it is there, perhaps empty."""
        return name in self._values

    @property
    def names(self) -> list[str]:
        """In the order of the file."""
        return list(self._values)

    @property
    def left(self) -> list[str]:
        """Names with a value that was not taken."""
        return [name for name, value in self._values.items() if value and name not in self._taken]

    def line(self, name: str) -> int:
        return self._lines[name]

    def take(self, *names: str) -> str:
        """The first value that is not empty, else an empty text. All of these names count as taken."""
        self._taken.update(names)
        return next((value for name in names if (value := self._values.get(name, "").strip())), "")

    def named(self, *names: str) -> str:
        """The name of which `take` gives the value; empty if there is none."""
        return next((name for name in names if self._values.get(name, "").strip()), "")

    def matching(self, pattern: str) -> list[str]:
        """Names that match the regular expression as a whole, in the order of the file."""
        return [name for name in self._values if re.fullmatch(pattern, name)]

    def number(self, *names: str) -> float | None:
        """Raises SourceError where the value is no number from 0."""
        name = self.named(*names)
        written = self.take(*names)
        if not written:
            return None
        try:
            value = float(written)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e12:
            raise SourceError(f"{name} should be a number", self.line(name))
        return value

    def whole(self, *names: str) -> int | None:
        """Raises SourceError where the value is no whole number from 0."""
        name = self.named(*names)
        value = self.number(*names)
        if value is not None and value != int(value):
            raise SourceError(f"{name} should be a whole number", self.line(name))
        return None if value is None else int(value)

    def items(self, *names: str) -> list[str]:
        """A list separated by commas."""
        return [item.strip() for item in self.take(*names).split(",") if item.strip()]

    def _referred(self, found: re.Match[str]) -> str:
        return self._values.get(found[1]) or found[0]


def general(env: Environment, migration: Migration) -> None:
    """The settings that mean the same in every family: address, log, week, database, outbound proxy."""
    if proxy := env.take("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "PROXY_URL"):
        migration.through(proxy)
    _listener(env, migration)
    _log(env, migration)
    _week(env, migration)
    _database(env, migration)


def times(env: Environment, migration: Migration, names: Iterable[str]) -> None:
    """Time limits, retries and circuits, for these providers."""
    timeout = {
        "connect": env.number("CONNECT_TIMEOUT"),
        "first_byte": env.number("REQUEST_TIMEOUT", "READ_TIMEOUT", "TIMEOUT"),
    }
    if milliseconds := env.number("API_TIMEOUT_MS", "REQUEST_TIMEOUT_MS", "TIMEOUT_MS"):
        timeout["first_byte"] = milliseconds / 1000
    limits = {key: duration(value) for key, value in timeout.items() if value}
    circuit = {
        "open_after": env.whole("CIRCUIT_BREAKER_THRESHOLD", "FAILURE_THRESHOLD", "MAX_FAILURES"),
        "cooldown": env.number("CIRCUIT_BREAKER_RECOVERY", "CIRCUIT_BREAKER_TIMEOUT", "RESET_TIMEOUT"),
    }
    opened = {key: duration(value) if key == "cooldown" else value for key, value in circuit.items() if value}
    for name in names:
        migration.providers[name] |= {"timeout": limits} if limits else {}
        migration.providers[name] |= {"circuit": opened} if opened else {}
    failover: dict[str, object] = {}
    if retries := env.whole("MAX_RETRIES", "RETRIES", "NUM_RETRIES"):
        failover["retries"] = min(retries, 10)
    if wait := env.number("MAX_RETRY_DELAY"):
        failover["wait"] = duration(wait)
    env.take("BASE_RETRY_DELAY", "RETRY_DELAY")
    if failover:
        migration.settings["failover"] = failover


def tier_models(env: Environment, *patterns: str) -> dict[str, str]:
    """The model of each tier that has one, by names such as `ZAI_{}_MODEL`."""
    found = {tier: env.take(*(pattern.format(tier.upper()) for pattern in patterns)) for tier in TIERS}
    return {tier: model for tier, model in found.items() if model}


def default_models(env: Environment, migration: Migration) -> dict[str, str]:
    """Claude Code's own names of its tiers. They stay in `.env`, where `/health` reads them."""
    found = tier_models(env, "ANTHROPIC_DEFAULT_{}_MODEL")
    for tier, model in found.items():
        migration.variables[f"ANTHROPIC_DEFAULT_{tier.upper()}_MODEL"] = model
    return found


def leftovers(env: Environment, migration: Migration) -> None:
    """A note for each setting that was not taken. Its value may be a secret and is not repeated."""
    for name in env.left:
        migration.note(f"{name} has no counterpart")


def tokens(written: str, name: str, line: int) -> str:
    """A count of tokens as rules.yaml writes it: `50000000` becomes `50M`. Raises SourceError."""
    found = _TOKENS.fullmatch(written.strip())
    if not found:
        raise SourceError(f"{name} should be a number of tokens", line)
    number = float(re.sub("[_,]", "", found[1])) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[found[2].lower()]
    for unit, one in (("M", 1_000_000), ("k", 1000)):
        if number >= one and number % (one / 1000) == 0:
            return f"{number / one:.3f}".rstrip("0").rstrip(".") + unit
    return f"{number:.0f}"


def _listener(env: Environment, migration: Migration) -> None:
    port_name = env.named("PORT", "PROXY_PORT")
    port = env.whole("PORT", "PROXY_PORT")
    host = env.take("HOST", "BIND", "BIND_HOST", "LISTEN_HOST")
    if port is not None and not 1 <= port <= 65535:
        raise SourceError(f"{port_name} should be a port", env.line(port_name))
    if port is not None or host:
        listen(migration, host or "127.0.0.1", port or 8082)


def listen(migration: Migration, host: str, port: int) -> None:
    """The address of the old router."""
    host = {"localhost": "127.0.0.1", "*": "0.0.0.0", "": "127.0.0.1"}.get(host, host)  # noqa: S104  read, not bound
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    migration.settings["listen"] = {"main": f"{host}:{port}"}
    if host not in ("127.0.0.1", "[::1]") and "clients" not in migration.settings:
        migration.note(f"listening on {host}: other machines may connect only once clients are configured")


def _log(env: Environment, migration: Migration) -> None:
    log: dict[str, object] = {}
    if level := env.take("LOG_LEVEL"):
        if level.lower() in LEVELS:
            log["level"] = LEVELS[level.lower()]
        else:
            migration.note("LOG_LEVEL: expected debug, info, warn, error or silent")
    if days := env.number("LOG_RETENTION_DAYS", "LOG_KEEP_DAYS", "LOG_MAX_DAYS", "LOG_DAYS", "LOG_RETENTION"):
        log["keep"] = duration(days * 86400)
    if prompts := env.take("LOG_PROMPTS"):
        log["prompts"] = prompts.lower() in ("1", "true", "yes", "on")
    if log:
        migration.settings["log"] = log
    for name in _LOG_FILES:
        if env.take(name):
            migration.note(
                f"{name}: the request log is requests.jsonl in the state folder (log: {{file: NAME}})"
            )


def _week(env: Environment, migration: Migration) -> None:
    """Days are names, or numbers as cron has them: 0 and 7 are Sunday, 1 is Monday."""
    names = env.matching("WEEK_START(_.*)?")
    if not names:
        return
    week = {"starts": "monday 00:00"}
    name = env.named("WEEK_START_DAY", "WEEK_START_WEEKDAY", "WEEK_START")
    day, time = "monday", ""
    if written := env.take("WEEK_START_DAY", "WEEK_START_WEEKDAY", "WEEK_START"):
        first, _, time = written.lower().partition(" ")
        known = [one for one in _DAYS if len(first) >= 2 and one.startswith(first)]
        if first.isdigit() and int(first) <= 7:
            known = [_DAYS[(int(first) - 1) % 7]]
            migration.note(f"{name}: {first} is taken for {known[0]} (0 and 7 are Sunday)")
        if len(known) != 1:
            raise SourceError(f"{name} should be a day of the week", env.line(name))
        day = known[0]
    time = env.take("WEEK_START_TIME") or time
    if not time:
        hour = env.take("WEEK_START_HOUR") or "0"
        time = hour if ":" in hour else f"{hour}:{env.take('WEEK_START_MINUTE') or '0'}"
    hours, _, minutes = time.partition(":")
    if not (hours.isdigit() and int(hours) < 24 and (minutes or "0").isdigit() and int(minutes or 0) < 60):
        raise SourceError(
            "the hour at which the week starts should be a time such as 08:30", env.line(names[0])
        )
    week["starts"] = f"{day} {int(hours):02}:{int(minutes or 0):02}"
    if zone := env.take("WEEK_START_TIMEZONE", "WEEK_START_TZ", "WEEK_START_ZONE"):
        week["timezone"] = zone
    migration.settings["week"] = week


def _database(env: Environment, migration: Migration) -> None:
    password = env.take("POSTGRES_PASSWORD", "PGPASSWORD")
    user = env.take("POSTGRES_USER", "PGUSER")
    database = env.take("POSTGRES_DB", "POSTGRES_DATABASE", "PGDATABASE")
    host = env.take("POSTGRES_HOST", "PGHOST")
    port = env.whole("POSTGRES_PORT", "PGPORT")
    url = env.take("DATABASE_URL", "POSTGRES_URL")
    if url:
        parts = urlsplit(url)
        if not parts.scheme.startswith("postgres") or not parts.hostname:
            migration.note("DATABASE_URL: the ledger is in SQLite or PostgreSQL")
            return
        written = re.sub(r"^\w+(\+\w+)?:", "postgresql+psycopg:", url)
    elif password or user or database or host:
        user = user or "postgres"
        login = f"{quote(user, safe='')}:{quote(password, safe='')}" if password else quote(user, safe="")
        at = f"{host or '127.0.0.1'}:{port or 5432}"
        written = f"postgresql+psycopg://{login}@{at}/{quote(database or user, safe='')}"
    else:
        return
    migration.settings["ledger"] = migration.secret("LEDGER_URL", written)
    migration.note(
        "the ledger in PostgreSQL needs the extra postgres, and begins empty: its tables are its own"
    )
    for name in env.matching("ADMINER_.*|PGADMIN_.*|POSTGRES_.*"):
        if env.take(name) and not name.startswith("POSTGRES_"):
            migration.note(
                f"{name}: a compose file with PostgreSQL and Adminer is in examples/failover-postgres"
            )
