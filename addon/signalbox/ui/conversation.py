"""What was said in a session while its flows are held: the conversation of a turn, and how two differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from signalbox.inspect import lenient
from signalbox.inspect.answers import answer_of, answer_text
from signalbox.inspect.requests import messages_request
from signalbox.inspect.text import LONG, NOTHING, SHORT, Fold, joined, whole
from signalbox.ui.difference import Line, difference

if TYPE_CHECKING:
    from signalbox.inspect.recorded import HeldTurn

MOST = 200_000
"""Characters of a conversation that are shown: its end."""


class ConversationView(NamedTuple):
    turns: Sequence[int]
    """Whose flows are held."""
    turn: int
    text: str
    cut: bool
    """Whether the beginning of the text is left out."""
    against: int | None
    diff: Sequence[Line]


def view(
    held: Sequence["HeldTurn"], turns: Sequence[Mapping[str, Any]], turn: int | None, against: int | None
) -> ConversationView | None:
    """The conversation up to and with `turn` (the latest of the main agent by itself), and what it has that
    `against` has not, and the other way round. None where no flow of these turns is held."""
    by_turn = _by_turn(held, turns)
    if not by_turn:
        return None
    main = [row["turn"] for row in turns if row["who"] == "main" and row["turn"] in by_turn]
    chosen: int = turn if turn is not None and turn in by_turn else max(main or by_turn)
    text = _said(by_turn[chosen], SHORT)
    other = by_turn[against] if against in by_turn and against != chosen else None
    return ConversationView(
        turns=sorted(by_turn),
        turn=chosen,
        text=text[-MOST:],
        cut=len(text) > MOST,
        against=against if other is not None else None,
        diff=list(_compared(other, by_turn[chosen])) if other is not None else [],
    )


def _by_turn(held: Sequence["HeldTurn"], turns: Sequence[Mapping[str, Any]]) -> dict[int, "HeldTurn"]:
    """What is held, by the number of its turn. Neither the id nor the moment of a request is its alone; of
    those that have both in common, the first held belongs to the first turn."""
    numbers: dict[tuple[str, int], list[int]] = {}
    for row in reversed(turns):
        numbers.setdefault((row["request_id"], row["ts"]), []).append(row["turn"])
    found = ((numbers.get((one.request_id, one.ts)), one) for one in held)
    return {free.pop(): one for free, one in found if free}


def _said(one: "HeldTurn", fold: Fold) -> str:
    """The request as mitmweb's view shows it, and the answer to it."""
    together = joined if fold != NOTHING else whole
    try:
        body = lenient.decode(one.request)
        request = together(messages_request(body, fold)) if isinstance(body, dict) else "(not a request)"
    except Exception:  # of broken data: the answer is shown all the same
        request = "(the request cannot be read)"
    try:
        answer = together(answer_text(answer_of(one.answer, "messages"), fold=max(fold, LONG)))
    except Exception:
        answer = "(the answer cannot be read)"
    return f"{request}\n\nAnswer\n{answer}"


def _compared(before: "HeldTurn", after: "HeldTurn") -> Iterator[Line]:
    """Their whole texts."""
    return difference(*(_said(one, NOTHING).splitlines() for one in (before, after)))
