"""A ledger as months of work would leave it: sessions with subagents, failovers, errors and cache misses.

The same arguments give the same rows. `python -m tests.support.seeded_ledger FOLDER [REQUESTS]` writes one.
"""

import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine, insert

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.database import FILE
from signalbox.record.prefixes import MESSAGES, SYSTEM, TOOLS, CachedBlock, pack
from signalbox.record.tables import ATTEMPTS, PREFIXES, REQUESTS
from tests.support.ledger import record


class Model(NamedTuple):
    """USD per million tokens: input, output, cache write, cache read."""

    provider: str
    name: str
    prices: tuple[float, float, float, float]
    first_byte: int
    speed: float
    """Tokens a second."""


LIST = {
    "haiku": (1.0, 5.0, 1.25, 0.10),
    "sonnet": (3.0, 15.0, 3.75, 0.30),
    "opus": (5.0, 25.0, 6.25, 0.50),
}
ASKED = {"haiku": "claude-haiku-4-5", "sonnet": "claude-sonnet-4-6", "opus": "claude-opus-4-7"}
FIRST = {
    "haiku": Model("zai", "glm-4.5-air", (0.2, 1.1, 0.2, 0.03), 700, 95),
    "sonnet": Model("zai", "glm-4.7", (0.6, 2.2, 0.6, 0.11), 1100, 60),
    "opus": Model("anthropic", "claude-opus-4-7", LIST["opus"], 1900, 48),
}
SECOND = {
    "haiku": Model("openrouter", "qwen/qwen3-coder", (0.3, 1.2, 0.3, 0.05), 1500, 70),
    "sonnet": Model("anthropic", "claude-sonnet-4-6", LIST["sonnet"], 1400, 62),
    "opus": Model("openrouter", "moonshotai/kimi-k2", (0.6, 2.5, 0.6, 0.15), 2100, 40),
}
RULES = {"haiku": "background", "sonnet": "coding", "opus": "planning"}
PROJECTS = ("/home/ada/signalbox", "/home/ada/website", "/home/ada/notes", "/home/ada/firmware")
CLIENTS = (None, None, "laptop", "ci")
DIGESTS = timedelta(days=1)
"""For which digests of blocks are written."""
PREFIX = ("ts", "session", "agent_id", "blocks")
CAUSES = ("expired", "expired", "tools", "system", "message 2", "unknown")


def rows(requests: int, now: datetime, days: int, seed: int = 7) -> list[dict[str, Any]]:
    """Rows of `requests`, oldest first, each with its `attempt_rows`. The latest session is going on."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    latest = True
    while len(made) < requests:
        begin = now - timedelta(minutes=50) if latest else _working_hour(chance, now, days)
        made += _session(chance, begin, now, requests - len(made))
        latest = False
    made.sort(key=lambda row: row["ts"])
    return made


def _working_hour(chance: random.Random, now: datetime, days: int) -> datetime:
    """Mostly in the ten hours of each day that end with this one, seldom on two days of seven."""
    while True:
        back = timedelta(days=days * chance.random() ** 1.3)
        works = back.days % 7 < 5 or chance.random() < 0.25
        by_day = back.seconds < 10 * 3600 or chance.random() < 0.12
        if works and by_day and back > timedelta(minutes=5):
            return now - back


def _session(chance: random.Random, begin: datetime, now: datetime, most: int) -> Iterator[dict[str, Any]]:
    session = str(random.Random(chance.random()).randbytes(16).hex())
    session = f"{session[:8]}-{session[8:12]}-4{session[13:16]}-a{session[17:20]}-{session[20:32]}"
    shared = {
        "session": session,
        "project": chance.choice(PROJECTS),
        "client": chance.choice(CLIENTS),
        "account": None,
    }
    tier = chance.choices(("opus", "sonnet", "haiku"), (2, 7, 1))[0]
    moment, given = begin, 0
    context = chance.randrange(14_000, 26_000)
    for turn in range(chance.randrange(4, 90)):
        if given >= most or moment >= now:
            return
        row, took = _turn(chance, shared, tier, None, moment, context, turn)
        yield row
        given += 1
        context = min(context + chance.randrange(300, 5000), 190_000)
        if tier != "haiku" and chance.random() < 0.05:
            for count in range(chance.randrange(1, 4)):
                small = chance.choice(("haiku", "haiku", "sonnet"))
                name = f"agent-{chance.randrange(1 << 32):08x}"
                at, own = moment + timedelta(seconds=took + count), chance.randrange(6_000, 12_000)
                for part in range(chance.randrange(3, 9)):
                    if given >= most or at >= now:
                        break
                    row, last = _turn(chance, shared, small, name, at, own, part)
                    yield row
                    given += 1
                    own += chance.randrange(500, 6000)
                    at += timedelta(seconds=last + chance.random() * 3)
        pause = chance.expovariate(1 / 25) if chance.random() < 0.9 else chance.uniform(60, 900)
        moment += timedelta(seconds=took + pause)


def _turn(
    chance: random.Random,
    shared: dict[str, Any],
    tier: str,
    agent_id: str | None,
    moment: datetime,
    context: int,
    turn: int,
) -> tuple[dict[str, Any], float]:
    """One request, and the seconds it took."""
    first, second, agent = FIRST[tier], SECOND[tier], "subagent" if agent_id else "main"
    fails, moves = chance.random() < 0.012, chance.random() < 0.03
    chosen = second if moves else first
    cause = chance.choice(CAUSES) if turn and chance.random() < 0.025 else None
    if moves and turn:
        cause = "provider"
    tokens = (0, 0, 0, 0)
    if not fails:
        fresh, grew = chance.randrange(5, 400), chance.randrange(200, 4000)
        read = 0 if turn == 0 or cause else context
        output = int(min(chance.lognormvariate(5.6, 1.0), 12_000)) + 5
        tokens = (fresh, output, context + grew if read == 0 else grew, read)
    wait = chance.lognormvariate(0, 0.35) * chosen.first_byte
    latency = wait + tokens[1] / chosen.speed * 1000 * chance.uniform(0.8, 1.3)
    attempts = []
    if moves:
        attempts.append(_attempt(first, moment, 300, "429", "throttle", (0, 0, 0, 0), None))
    status = "error" if fails else "cancelled" if chance.random() < 0.008 else "success"
    code = chance.choice((429, 500, 529)) if fails else 200
    cost = _cost(tokens, chosen.prices)
    label = "cancelled" if status == "cancelled" else str(code)
    kind = "overload" if fails else "success"
    attempts.append(_attempt(chosen, moment, int(latency), label, kind, tokens, cost, code))
    named = [f"{one['provider']}:{one['outcome']}" for one in attempts]
    row = {
        "ts": int(moment.timestamp() * 1000),
        "model": ASKED[tier],
        "backend": chosen.provider,
        **dict(zip(TOKEN_FIELDS, tokens, strict=True)),
        "status": status,
        "upstream_model": chosen.name,
        "rule": RULES[tier],
        "reason": f"rule:{RULES[tier]}",
        "attempts": " ".join(named),
        "latency_ms": int(latency),
        "first_byte_ms": None if fails else int(wait),
        "cost": cost,
        "tier": tier,
        "agent": agent,
        "agent_id": agent_id,
        "request_class": agent,
        "stream": True,
        "http_status": code,
        "error_type": "overloaded_error" if fails else None,
        "blocks": (turn, tier, turn + 1 if cause == "tools" else 0),
        "request_id": f"req_{chance.randrange(1 << 64):016x}",
        "list_cost": _cost(tokens, LIST[tier]),
        "cache_cause": cause,
        "missed_tokens": context if cause else None,
        "missed_cost": _missed_cost(context, chosen.prices) if cause else None,
        **shared,
    }
    return row | {"attempt_rows": attempts}, latency / 1000


def _blocks(turn: int, tier: str, changed: int) -> bytes:
    """Of a request that many turns into its conversation; `changed` is in the digests of its tools."""
    tools = (CachedBlock(_digest(f"{tier} tool {number} {changed}"), 900, TOOLS) for number in range(18))
    system = (CachedBlock(_digest(f"{tier} system {number}"), 4000, SYSTEM) for number in range(2))
    messages = range(1 + 2 * turn)
    said = (CachedBlock(_digest(f"{tier} message {number}"), 700, MESSAGES + number) for number in messages)
    return pack((*tools, *system, *said))


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


def _attempt(
    chosen: Model,
    moment: datetime,
    latency: int,
    outcome: str,
    kind: str,
    tokens: tuple[int, ...],
    cost: float | None,
    status: int = 429,
) -> dict[str, Any]:
    return {
        "provider": chosen.provider,
        "model": chosen.name,
        "key": 1,
        "started": int(moment.timestamp() * 1000),
        "latency_ms": latency,
        "first_byte_ms": min(latency, chosen.first_byte),
        "outcome": outcome,
        "http_status": status,
        "kind": kind,
        "detail": "",
        **dict(zip(TOKEN_FIELDS, tokens, strict=True)),
        "cost": cost,
    }


def _cost(tokens: tuple[int, ...], prices: tuple[float, ...]) -> float:
    return round(sum(count * price for count, price in zip(tokens, prices, strict=True)) / 1e6, 6)


def _missed_cost(tokens: int, prices: tuple[float, ...]) -> float:
    return _cost((0, 0, tokens, 0), prices) - _cost((0, 0, 0, tokens), prices)


def seed(folder: Path, requests: int, now: datetime, days: int = 56) -> list[dict[str, Any]]:
    """Write the ledger of a state folder; returns its rows as `rows` does, with their ids."""
    record(folder, [])  # makes the tables
    made = rows(requests, now, days)
    columns = REQUESTS.c.keys()
    attempts, prefixes = [], []
    for number, row in enumerate(made, 1):
        row["id"] = number
        attempts += [
            {"request": number, "number": place, **one} for place, one in enumerate(row["attempt_rows"], 1)
        ]
        if row["ts"] > (now - DIGESTS).timestamp() * 1000:
            row["blocks"] = _blocks(*row["blocks"])
            prefixes.append({"request": number, **{name: row[name] for name in PREFIX}})
    engine = create_engine(f"sqlite:///{folder / FILE}")
    with engine.begin() as connection:
        connection.execute(insert(REQUESTS), [{name: row[name] for name in columns} for row in made])
        connection.execute(insert(ATTEMPTS), attempts)
        connection.execute(insert(PREFIXES), prefixes)
    engine.dispose()
    return made


def repeat(folder: Path, times: int) -> None:
    """Make the ledger that many times as large, with the same requests at other hours."""
    with closing(sqlite3.connect(folder / FILE)) as database, database:
        (last,) = database.execute("SELECT max(id) FROM requests").fetchone()
        names = [column.name for column in REQUESTS.c]
        taken = ", ".join(
            {"id": "id + :more", "ts": "ts - :earlier"}.get(name, f'"{name}"') for name in names
        )
        for time in range(1, times):
            database.execute(
                f"INSERT INTO requests SELECT {taken} FROM requests WHERE id <= :last",
                {"more": time * last, "earlier": time * 7_777_777, "last": last},
            )


if __name__ == "__main__":
    seed(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50_000, datetime.now(UTC))
