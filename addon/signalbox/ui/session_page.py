"""`/ui/sessions` and `/ui/sessions/ID`: sessions, and one of them turn by turn on a time axis."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from signalbox.record.prefixes import CachedBlock, growth
from signalbox.record.queries import Filter, LedgerReader
from signalbox.ui import format, overview, request_page
from signalbox.ui.charts import bar_parts

if TYPE_CHECKING:
    from signalbox.ui.state import State

TIERS = ("opus", "sonnet", "haiku", "fable", "other")
CAUSES = {
    "model": "another model answered than before",
    "provider": "another provider answered than before",
    "key": "another key was used than before",
    "tools": "the tools changed",
    "system": "the system text changed",
    "message": "the first message that differs, from 0",
    "router": "an edit of the router's differed from the last time",
    "expired": "the pause was longer than the cache lives",
    "unknown": "nothing that was sent explains it",
}
"""What stands in the column `cache_cause` (the contract, section 8), for people."""
SESSIONS = 50
"""On one page."""
TURNS = 250
"""On one page."""
LOOKED_BACK = 100
"""Turns before a page that are looked at for those which its first ones continue."""
ALONE = 2000
"""Turns in a file of its own."""
PAUSE = 120_000
"""Milliseconds without any request that the time axis leaves out."""
_BREAK = 1.2
"""Percent of the width that stand for such a pause."""
_BREAKS = 40
"""Percent of the width that stand for all of them at the most."""
_LEAST = 0.25
"""Percent of the width of the shortest bar."""
_APART = 7.0
"""Percent of the width between two labels."""


def sessions(reader: LedgerReader, which: Filter, number: int, state: "State") -> dict[str, Any]:
    """What sessions.html shows."""
    found = reader.sessions(which, limit=SESSIONS + 1, offset=(number - 1) * SESSIONS)
    most = max((overview.all_tokens(one) for one in found), default=0)
    return {
        "sessions": [_listed(one, most) for one in found[:SESSIONS]],
        "number": number,
        "more": len(found) > SESSIONS,
        "choices": reader.choices(request_page.CHOICES),
    }


def _listed(one: Mapping[str, Any], most: int) -> dict[str, Any]:
    project = one["project"]
    return {
        **one,
        "folder": PurePath(project).name if project else None,
        "took": one["last"] - one["first"],
        "all_tokens": overview.all_tokens(one),
        "spans": bar_parts([(style, one[name]) for style, name in request_page.PARTS], most),
    }


class Bar(NamedTuple):
    """A request on the time axis, in percent of the width."""

    x: float
    width: float
    style: str
    tooltip: str
    missed: bool


class Lane(NamedTuple):
    name: str
    bars: list[Bar]


class Label(NamedTuple):
    x: float
    text: str


class TimeAxis:
    """Places moments (Unix milliseconds) in percent of a width; long pauses are left out."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        """`spans` are beginnings and ends of requests, in the order of their beginnings."""
        self._busy: list[list[int]] = []
        for begin, end in spans:
            if self._busy and begin - self._busy[-1][1] <= PAUSE:
                self._busy[-1][1] = max(self._busy[-1][1], end)
            else:
                self._busy.append([begin, max(end, begin + 1)])
        self.pauses = max(len(self._busy) - 1, 0)
        """How many are left out."""
        self._break = min(_BREAK, _BREAKS / self.pauses) if self.pauses else 0.0
        shown = max(sum(end - begin for begin, end in self._busy), 1)
        self._scale = (100 - self._break * self.pauses) / shown

    def place(self, moment: int) -> float:
        x = 0.0
        for begin, end in self._busy:
            if moment <= end:
                return x + max(moment - begin, 0) * self._scale
            x += (end - begin) * self._scale + self._break
        return 100.0

    def labels(self, zone: tzinfo | None) -> list[Label]:
        """The time at the beginning, after each pause, and in between, where there is room."""
        wanted: list[int] = []
        for begin, end in self._busy:
            step = (end - begin) / max(round((end - begin) * self._scale / 16), 1)
            wanted += [round(begin + part * step) for part in range(max(round((end - begin) / step), 1))]
        labels: list[Label] = []
        for moment in wanted:
            x = self.place(moment)
            if x < 96 and (not labels or x - labels[-1].x >= _APART):
                local: datetime = format.of_ms(moment).astimezone(zone)
                labels.append(Label(round(x, 2), f"{local:%H:%M}"))
        return labels


def session(
    reader: LedgerReader, name: str, number: int, state: "State", *, whole: bool
) -> dict[str, Any] | None:
    """What session.html shows; None where nothing of the session is on record. `whole`: on one page."""
    which = Filter(session=name)
    totals = reader.totals(which)
    if not totals.requests:
        return None
    limit = ALONE if whole else TURNS
    pages = max(-(-totals.requests // limit), 1)
    number = 1 if whole else min(number, pages)
    offset = (number - 1) * limit
    earlier = min(offset, LOOKED_BACK)
    found = reader.requests(which, limit=limit + earlier, offset=offset - earlier, oldest=True)
    rows = [dict(row) for row in found]
    agents = reader.agents([row["id"] for row in rows])
    zone = overview.zone_of(state.rules.week)
    blocks = reader.blocks([row["id"] for row in rows])
    turns = _turns(rows, agents, blocks, state, offset - earlier + 1)[earlier:]
    rows = rows[earlier:]
    axis = TimeAxis([(row["ts"], row["ts"] + row["latency_ms"]) for row in rows])
    costs = [turn["missed_cost"] for turn in turns if turn["missed_cost"] is not None]
    return {
        "totals": totals,
        "all_tokens": overview.all_tokens(msgspec.structs.asdict(totals)),
        "tiers": [tier for tier in TIERS if any(turn["style"] == tier for turn in turns)],
        "has_errors": any(turn["status"] == "error" for turn in turns),
        "missed_cost": sum(costs) if costs else None,
        "causes": CAUSES,
        "turns": turns,
        "lanes": _lanes(turns, axis),
        "labels": axis.labels(zone),
        "pauses": axis.pauses,
        "misses": [turn for turn in turns if turn["cache_cause"]],
        "project": next((row["project"] for row in rows if row["project"]), None),
        "client": next((row["client"] for row in rows if row["client"]), None),
        "number": number,
        "pages": pages,
    }


def _turns(
    rows: Sequence[Mapping[str, Any]],
    agents: Mapping[Any, str | None],
    blocks: Mapping[Any, Sequence[CachedBlock]],
    state: "State",
    first: int,
) -> list[dict[str, Any]]:
    names = agent_names(rows, agents)
    most = max((overview.all_tokens(row) for row in rows), default=0)
    before: dict[tuple[str, str | None], Mapping[str, Any]] = {}
    turns = []
    for number, row in enumerate(rows, first):
        agent = names[row["id"]]
        conversation = (agent, row["class"])
        previous = before.get(conversation)
        grew = _grew(blocks.get(previous["id"]) if previous else None, blocks.get(row["id"]))
        turns.append(request_page.row_view(row, most, state) | {"turn": number, "who": agent, "grew": grew})
        if row["status"] == "success":
            before[conversation] = row
    return turns


def _grew(before: Sequence[CachedBlock] | None, now: Sequence[CachedBlock] | None) -> str:
    """`2 messages, 1 tool`: blocks that were added; empty where either request's are not on record."""
    if before is None or now is None:
        return ""
    grown = growth(before, now)
    parts = ((grown.messages, "message"), (grown.system, "system"), (grown.tools, "tool"))
    return ", ".join(
        f"{count} {name}{'s' if count > 1 and name != 'system' else ''}" for count, name in parts if count
    )


def agent_names(rows: Sequence[Mapping[str, Any]], agents: Mapping[Any, str | None]) -> dict[Any, str]:
    """By the id of a request who sent it: `main`, or `subagent 1` in the order of their first requests.

    Older requests have no agent id any more: their subagents are told apart by what overlaps in time.
    """
    names: dict[Any, str] = {}
    known: dict[str, str] = {}
    unnamed: list[tuple[int, str]] = []
    for row in rows:
        if row["agent"] != "subagent":
            names[row["id"]] = "main"
            continue
        agent = agents.get(row["id"])
        if agent:
            names[row["id"]] = known.setdefault(agent, f"subagent {len(known) + 1}")
            continue
        begin, end = row["ts"], row["ts"] + row["latency_ms"]
        free = next((place for place, (until, _) in enumerate(unnamed) if until <= begin), None)
        if free is None:
            free = len(unnamed)
            unnamed.append((0, f"subagents {free + 1}" if agents else f"subagent {free + 1}"))
        unnamed[free] = (end, unnamed[free][1])
        names[row["id"]] = unnamed[free][1]
    return names


def _lanes(turns: Sequence[Mapping[str, Any]], axis: TimeAxis) -> list[Lane]:
    lanes: dict[str, Lane] = {}
    for turn in turns:
        begin = axis.place(turn["ts"])
        end = axis.place(turn["ts"] + turn["latency_ms"])
        cause = f"\ncache miss: {turn['cache_cause']}" if turn["cache_cause"] else ""
        tooltip = (
            f"{turn['turn']}. {turn['model']} → {turn['backend']} {turn['upstream_model']}\n"
            f"{format.tokens(turn['tokens_in'])} in, {format.tokens(turn['output_tokens'])} out, "
            f"{format.usd(turn['cost'])}, {format.duration(turn['latency_ms'])}{cause}"
        )
        style = "error" if turn["status"] == "error" else turn["style"]
        bar = Bar(
            round(begin, 3), round(max(end - begin, _LEAST), 3), style, tooltip, bool(turn["cache_cause"])
        )
        lanes.setdefault(turn["who"], Lane(turn["who"], [])).bars.append(bar)
    return sorted(lanes.values(), key=lambda lane: lane.name != "main")
