"""Turns an answer of Responses into events of the Messages API: events in, events out, no I/O.

The items of an answer may arrive at the same time, while blocks of the Messages API follow one another. So
items have turns, in the order in which they begin: the first that has not ended is written as it comes, and
the others wait (openai-responses.md, 6).
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import token_count
from signalbox.anthropic.issued import SEARCHED_HERE
from signalbox.anthropic.json_edit import whole_characters
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.anthropic.writer import LARGEST, MessagesEvent, web_search_result
from signalbox.openai.chunks import Fragment, arguments_text, parse_object
from signalbox.openai.errors import EMPTY_ANSWER, anthropic_error
from signalbox.openai.finish import fault_of, is_cut, stop_reason
from signalbox.openai.incoming import Object, as_list, as_object, as_objects, as_text
from signalbox.openai.tool_calls import CallError, SurrogateJoiner, ToolCalls
from signalbox.responses.events import (
    ITEMS,
    PARTS,
    Begun,
    Cited,
    Ended,
    ErrorReported,
    Foreign,
    ItemBegun,
    ItemEnded,
    ItemKind,
    Key,
    Malformed,
    PartKind,
    Piece,
    Step,
    TextEnded,
    piece_of,
    step_of,
    whole_answer,
)

EXPECTED = "response of the Responses API"
"""What an answer should be, for people."""

_EACH = 100
"""Characters that each piece counts for besides its own, so that many small ones reach the limit too."""
_MOST_ITEMS = 1000
_OF_PIECE = {f"{name}.delta": part for name, part in PARTS.items()}
_STOPS = ("max_messages", "steered")
"""Reasons of incomplete answers that end a turn as usual (openai-responses.md, 5)."""


class _Item:
    """One item of the output."""

    def __init__(self, kind: ItemKind, number: int) -> None:
        self.kind = kind
        self.number = number
        self.item: Object = {}
        """The item, as far as it is known."""
        self.is_done = False
        self.waiting: list[tuple[PartKind, int, str]] = []
        """Texts that came before the item's turn."""
        self.citations: list[Object] = []
        self.came: set[tuple[PartKind, int]] = set()
        """The texts of which pieces came."""
        self.halves = SurrogateJoiner()
        self.shown: tuple[PartKind, int] | None = None
        """The part of the thinking that was written last."""
        self.raw: list[tuple[int, str]] = []
        """Raw reasoning that is shown if no summary comes."""
        self.was_left = False
        """Whether thinking of it was ended because other items went on."""
        self.input = ""
        """The input of a custom tool."""
        self.search_id = ""
        """Of a search that the client has got."""


class ResponsesStream:
    """An `anthropic.translated_reader.AnswerStream`.

    `sign` makes the signature of a thinking block of encrypted reasoning. With `awaits_titles` the results of
    a search wait for their titles. Errors are noted in `facts` (`cut`, `provider_error`).
    """

    def __init__(
        self,
        facts: AnswerFacts,
        context: AnswerContext,
        *,
        awaits_titles: bool,
        sign: Callable[[str], str],
        largest: int = LARGEST,
    ) -> None:
        """An answer of more than `largest` characters is cut."""
        self.facts = facts
        self._context = context
        self._awaits_titles = awaits_titles
        self._sign = sign
        self._largest = largest
        self._writer = context.writer(facts, lambda _: sign(self._encrypted))
        self._calls = ToolCalls(
            self._writer,
            context.names,
            context.seed,
            provider=context.provider,
            signed=False,
            streams=context.wants_stream,
        )
        self._items: dict[Key, _Item | None] = {}
        """By `output_index`; None for an item that is no part of an answer."""
        self._queue: deque[_Item] = deque()
        """Items that are not written to their end; the turn is the first one's."""
        self._begun = 0
        """The number of items so far."""
        self._is_numbered = True
        """Whether each item has its own `output_index`."""
        self._encrypted = ""
        """The encrypted reasoning for the signature of the open thinking block."""
        self._titles: dict[str, tuple[str, str]] = {}
        """URL and title of each source that the text cites."""
        self._last: Piece | None = None
        """The last piece, if it is of a text that is being written."""
        self._searches = 0
        self._refused = False
        self._is_last = False
        """Whether the last event has come."""
        self._foreign: Foreign | None = None
        self._characters = 0
        self._size = 0
        self._over = False

    @property
    def over(self) -> bool:
        """True once the last event has come."""
        return self._over

    finished = over

    def drain(self) -> list[MessagesEvent]:
        """See `AnswerStream.drain`."""
        return self._writer.drain()

    def event(self, block: bytes) -> None:
        """See `AnswerStream.event`."""
        if self._over:
            return
        piece = piece_of(block)
        if piece is not None and self._goes_on(piece):
            self._measure(piece.delta)
            self._writer.text(piece.delta)
        elif (step := piece or step_of(block)) is not None:
            self._last = None
            self.take(step)

    def _goes_on(self, piece: Piece) -> bool:
        """Whether the piece goes on with the text that is being written, as most do. It holds no half of a
        surrogate pair, since it was decoded strictly."""
        last = self._last
        return (
            last is not None
            and piece.output_index == last.output_index
            and piece.content_index == last.content_index
            and piece.type == last.type
        )

    def last_event(self, block: bytes) -> None:
        """See `AnswerStream.last_event`."""
        step = step_of(block)
        if step is not None and not isinstance(step, Malformed):
            self.take(step)

    def whole(self, body: bytes) -> None:
        """See `AnswerStream.whole`."""
        step = whole_answer(body)
        if isinstance(step, Malformed):
            self.facts.cut = "the answer is not JSON"
        else:
            self.take(step)

    def end(self) -> None:
        """See `AnswerStream.end`. Every answer has a last event; one without it is noted as cut."""
        if self._over:
            return
        if self._foreign is not None and not self._writer.begun:
            self._fail(self._foreign.body, {})
        else:
            self._cut("the stream ended in the middle")

    def take(self, step: Step) -> None:
        """Takes the next step."""
        if self._over:
            return
        try:
            self._take(step)
        except CallError as error:
            self._cut(str(error))

    def _take(self, step: Step) -> None:
        match step:
            case Piece(type=kind, output_index=key, delta=text):
                item = self._text(kind, key, step.part, text)
                if item is not None and item.kind == "message" and self._is_written(item):
                    self._last = step
            case TextEnded(type=kind, key=key, part=part, text=text, name=name):
                item = self._text(kind, key, part, text, is_whole=True)
                if item is not None and name:
                    item.item = {"name": name} | item.item
            case ItemBegun(key, fields):
                self._begin(key, fields)
                self._advance()
            case ItemEnded(key, fields):
                self._end_item(key, fields)
                self._advance()
            case Cited(key, annotation):
                self._cite(self._items.get(key), annotation)
                self._advance()
            case Begun(model):
                if model:
                    self._writer.named(model)
            case Ended():
                self._close(step)
            case ErrorReported(body, usage):
                self._fail(body, usage)
            case Foreign():
                self._foreign = self._foreign or step
            case Malformed():
                self._cut("an event is not JSON")

    # which item it is

    def _text(self, type: str, key: Key, part: int, text: str, *, is_whole: bool = False) -> _Item | None:
        """Takes a piece of a text, or with `is_whole` all of it, which counts if no piece came before.
        Returns its item."""
        kind, of = _OF_PIECE.get(type, (None, None))
        if kind is None or of is None:
            return None
        item = self._items.get(key)
        if item is None or item.kind != kind or (item.is_done and not is_whole):
            item = self._new(key, kind)
        if not text or item.is_done or (is_whole and (of, part) in item.came):
            return item
        item.came.add((of, part))
        self._measure(text)
        if self._queue[0] is item:
            self._write(item, of, part, text)
        else:
            item.waiting.append((of, part, text))
            self._advance()
        return item

    def _is_written(self, item: _Item) -> bool:
        """Whether the text of this item is being written."""
        has_turn = bool(self._queue) and self._queue[0] is item
        return has_turn and self._writer.open == "text" and not item.halves.holds

    def _new(self, key: Key, kind: ItemKind) -> _Item:
        if self._begun >= _MOST_ITEMS:
            raise CallError("there are too many items")
        if isinstance(key, str) or key in self._items:
            self._is_numbered = False
            if (before := self._items.get(key)) is not None:
                before.is_done = True
        item = self._items[key] = _Item(kind, self._begun)
        self._begun += 1
        self._queue.append(item)
        return item

    def _begin(self, key: Key, fields: Object) -> None:
        """The encrypted reasoning may not be whole yet (openai-responses.md, 3)."""
        kind = ITEMS.get(as_text(fields.get("type")))
        if kind is None:
            self._items.setdefault(key, None)
            return
        item = self._items.get(key)
        if item is None or item.kind != kind or item.is_done or _is_another(item.item, fields):
            item = self._new(key, kind)
        item.item |= {name: value for name, value in fields.items() if name != "encrypted_content"}

    def _end_item(self, key: Key, fields: Object) -> None:
        kind = ITEMS.get(as_text(fields.get("type")))
        if kind is None:
            self._items.setdefault(key, None)
            return
        item = self._items.get(key)
        if item is None or item.kind != kind or item.is_done:
            item = self._new(key, kind)
        item.item |= fields
        item.is_done = True
        for content in as_objects(item.item.get("content")):
            for annotation in as_objects(content.get("annotations")):
                self._cite(item, annotation)

    def _measure(self, text: str) -> None:
        self._characters += len(text)
        self._size += len(text) + _EACH
        if self._size > self._largest:
            self._cut("the answer is too large")

    # turns

    def _advance(self) -> None:
        """Writes all that may be written now."""
        while self._queue:
            item = self._queue[0]
            waiting, item.waiting = item.waiting, []
            for of, part, text in waiting:
                self._write(item, of, part, text)
            if item.is_done:
                if not self._finish(item):
                    return
            elif self._may_be_left(item) and any(one.waiting or one.is_done for one in self._others()):
                self._leave(item)
                self._queue.append(item)  # it may go on after what comes between
            else:
                return
            self._queue.popleft()

    def _may_be_left(self, item: _Item) -> bool:
        """Whether other items may be written before this one has ended: some servers end no reasoning."""
        is_shown = item.shown is not None or item.raw or not self._context.shows_thinking
        return item.kind == "message" or (item.kind == "reasoning" and bool(is_shown))

    def _leave(self, item: _Item) -> None:
        self._show_raw(item)
        if item.kind == "reasoning" and item.shown is not None:
            self._encrypted = ""
            self._writer.thinking(item.halves.end())
            self._writer.close()
            item.shown, item.was_left = None, True

    def _others(self) -> Iterator[_Item]:
        """The items after the one whose turn it is."""
        return (item for item in self._queue if item is not self._queue[0])

    def _write(self, item: _Item, of: PartKind, part: int, text: str) -> None:
        match of:
            case "text" | "refusal":
                self._refused = self._refused or of == "refusal"
                self._writer.text(item.halves.feed(text))
            case "summary" | "reasoning":
                self._think(item, of, part, text)
            case "arguments":
                name, id = as_text(item.item.get("name")), as_text(item.item.get("call_id"))
                self._calls.take(Fragment(item.number, whole_characters(id), whole_characters(name), text))
            case "input":
                item.input += text

    def _think(self, item: _Item, of: PartKind, part: int, text: str) -> None:
        """Of both kinds of reasoning, which say the same, a client gets the summary (openai-responses.md, 6);
        in a stream the one that comes first."""
        if not self._context.shows_thinking or (item.shown is not None and item.shown[0] != of):
            return
        if of == "reasoning" and not self._context.wants_stream:
            item.raw.append((part, text))
        else:
            self._show_thought(item, of, part, text)

    def _show_raw(self, item: _Item) -> None:
        raw, item.raw = item.raw, []
        for part, text in raw if item.shown is None or item.shown[0] == "reasoning" else ():
            self._show_thought(item, "reasoning", part, text)

    def _show_thought(self, item: _Item, of: PartKind, part: int, text: str) -> None:
        if item.shown is not None and item.shown[1] != part:
            self._writer.thinking("\n\n")
        item.shown = of, part
        self._writer.thinking(item.halves.feed(text))

    def _finish(self, item: _Item) -> bool:
        """Writes the end of an item that has ended. False if it has to wait for what follows."""
        match item.kind:
            case "message":
                self._finish_message(item)
            case "reasoning":
                self._finish_reasoning(item)
            case "call":
                self._finish_call(item, arguments_text(item.item.get("arguments")))
            case "custom call":
                said = as_text(item.item.get("input")) or item.input
                self._finish_call(item, msgspec.json.encode({"input": whole_characters(said)}).decode())
            case "search":
                return self._finish_search(item)
        return True

    def _finish_message(self, item: _Item) -> None:
        for part, content in enumerate(as_list(item.item.get("content"))):
            self._write_rest(item, "refusal", part, as_text(as_object(content).get("refusal")))
            self._write_rest(item, "text", part, as_text(as_object(content).get("text")))
        self._writer.text(item.halves.end())
        for citation in item.citations if self._searches else ():
            self._writer.cite(citation)
        self._writer.close()

    def _finish_reasoning(self, item: _Item) -> None:
        if not self._context.shows_thinking:
            return
        for part, content in enumerate(as_list(item.item.get("summary"))):
            self._write_rest(item, "summary", part, as_text(as_object(content).get("text")))
        for part, content in enumerate(as_list(item.item.get("content"))):
            self._write_rest(item, "reasoning", part, as_text(as_object(content).get("text")))
        self._show_raw(item)
        self._encrypted = whole_characters(as_text(item.item.get("encrypted_content")))
        if item.was_left:
            self._encrypted = ""  # which would be sent back at a place that is not its own
        if item.shown is not None:
            self._writer.thinking(item.halves.end())
            self._writer.close()
        elif self._encrypted:
            self._writer.unseen_thinking(self._sign(self._encrypted))

    def _write_rest(self, item: _Item, of: PartKind, part: int, text: str) -> None:
        """Writes a text of which no piece came."""
        if text and (of, part) not in item.came:
            self._measure(text)
            self._write(item, of, part, text)

    def _finish_call(self, item: _Item, arguments: str) -> None:
        self._write(item, "arguments", 0, "" if ("arguments", 0) in item.came else arguments)
        self._calls.release()
        if not self._calls.is_empty:
            self._calls.finish(is_cut=item.item.get("status") == "incomplete")

    # searches (openai-responses.md, 4)

    def _cite(self, item: _Item | None, annotation: Object) -> None:
        """Notes a source that the text cites."""
        url, title = (whole_characters(as_text(annotation.get(name))) for name in ("url", "title"))
        if not url or annotation.get("type") != "url_citation":
            return
        citation = {
            "type": "web_search_result_location",
            "cited_text": "",
            "url": url,
            "title": title or None,
            "encrypted_index": "",
        }
        if item is not None and citation not in item.citations:
            item.citations.append(citation)
            self._measure("")
        if title:
            self._titles.setdefault(_plain(url), (url, title))

    def _finish_search(self, item: _Item) -> bool:
        action = as_object(item.item.get("action"))
        if action.get("type") not in (None, "search"):
            return True  # it opens a page, which is no search
        if not item.search_id:
            self._searches += 1
            item.search_id = f"{SEARCHED_HERE}{self._context.seed}{self._searches}"
            self._writer.search(item.search_id, {"query": _query(action)})
        if item.item.get("status") == "failed":
            error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
            self._writer.search_result(item.search_id, error)
            return True
        found = as_list(action.get("sources")) or as_list(item.item.get("results"))
        sources = {
            whole_characters(as_text(one.get("url"))): whole_characters(as_text(one.get("title")))
            for one in as_objects(found)
        }
        sources.pop("", None)
        if not self._knows_titles(sources):
            return False
        shown = sources or dict(self._titles.values())  # of a search that names no sources: what is cited
        self._writer.search_result(item.search_id, [self._result(*source) for source in shown.items()])
        return True

    def _knows_titles(self, sources: Mapping[str, str]) -> bool:
        """OpenAI names the titles of sources only where the text cites them, so the results wait for the end
        of the text that follows, and the text for them."""
        has_all = sources and all(title or _plain(url) in self._titles for url, title in sources.items())
        if has_all or not self._awaits_titles:
            return True
        return self._is_last or any(
            one.is_done if one.kind == "message" else "call" in one.kind for one in self._others()
        )

    def _result(self, url: str, title: str) -> Object:
        return web_search_result(url, title or self._titles.get(_plain(url), ("", ""))[1])

    # the end

    def _close(self, ended: Ended) -> None:
        if ended.model:
            self._writer.named(ended.model)
        finish = _finish_word(ended)
        self._complete(ended, is_cut=is_cut(finish))
        self._is_last = True
        self._advance()
        if kind := fault_of(finish):
            error = {"type": kind, "code": finish, "message": f"the answer ended with {finish}"}
            self._fail(msgspec.json.encode({"error": error}), ended.usage)
        if self._over:
            return
        reason = stop_reason(finish, called=self._writer.calls > 0, refused=self._refused)
        if reason == "end_turn" and not self._writer.blocks:
            self._fail(EMPTY_ANSWER, ended.usage)
            return
        self._over = True
        usage: Object = usage_of(ended.usage)
        self.facts.usage.take(usage)
        if searches := ended.searches or self._searches:
            usage["server_tool_use"] = {"web_search_requests": searches}
        self._writer.stop(reason, usage, characters=self._characters)

    def _complete(self, ended: Ended, *, is_cut: bool) -> None:
        """Ends all items; the last event has those that did not come before, or did not end."""
        if self._is_numbered or not self._items:
            for key, raw in enumerate(ended.output):
                known = self._items.get(key)
                if key not in self._items or (known is not None and not known.is_done):
                    self._end_item(key, parse_object(bytes(raw)) or {})
        for item in self._queue:
            if not item.is_done:
                item.is_done = True
                item.item |= {"status": "incomplete"} if is_cut else {}

    def _cut(self, why: str) -> None:
        self.facts.cut = why
        self._over = True

    def _fail(self, body: bytes, usage: Object) -> None:
        """`usage` counts all the same: a provider may bill what has failed."""
        self.facts.usage.take(usage_of(usage))
        self.facts.provider_error = body = without_secrets(body, self._context.secrets)
        self._over = True
        to = self._context
        error = anthropic_error(200, body, to.provider, to.model, expected=EXPECTED, estimate=to.estimate)
        self._writer.error(error.type, error.message, self._context.request_id)


def _is_another(item: Object, begun: Object) -> bool:
    """Whether a beginning is that of another item than the one that began under its index and did not end."""
    return bool(item) and (not item.get("call_id") or item["call_id"] != begun.get("call_id"))


def _finish_word(ended: Ended) -> str:
    """Why an answer ended, in the words of chat completions."""
    if ended.status != "incomplete":
        return "stop"
    reason = whole_characters(ended.reason).lower()
    return "stop" if reason in _STOPS else reason or ended.status


def _query(action: Object) -> str:
    queries = [as_text(one) for one in as_list(action.get("queries"))]
    return whole_characters(as_text(action.get("query")) or ", ".join(filter(None, queries)))


def _plain(url: str) -> str:
    """The URL without what OpenAI adds to those that a text cites."""
    return re.sub(r"[?&]utm_source=openai\b", "", url).rstrip("/")


def usage_of(usage: Object) -> dict[str, Any]:
    """The counts of a `usage` object as Anthropic names them; empty if it holds none. `input_tokens` includes
    cached and written tokens (openai-responses.md, 5)."""
    asked, said = token_count(usage.get("input_tokens")), token_count(usage.get("output_tokens"))
    details = as_object(usage.get("input_tokens_details"))
    read, written = (token_count(details.get(name)) for name in ("cached_tokens", "cache_write_tokens"))
    if not (asked or said or read or written):
        return {}
    counts: dict[str, Any] = {
        "input_tokens": max(asked - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": said,
    }
    if thought := token_count(as_object(usage.get("output_tokens_details")).get("reasoning_tokens")):
        counts["output_tokens_details"] = {"thinking_tokens": thought}
    return counts
