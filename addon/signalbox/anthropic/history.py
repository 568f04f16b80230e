"""Repairs a history with answers of other providers, so that Anthropic accepts it.

Anthropic checks the whole history of every request, so one invalid block makes each later request of the
conversation fail with 400 (reference/anthropic-messages.md, section 3; translation.md, 2 and 3):

- ids of tool calls match `^[a-zA-Z0-9_-]+$` (Kimi: `functions.Bash:0`) and are unique in the conversation;
- ids of `server_tool_use` match `^srvtoolu_[a-zA-Z0-9_]+$`, and the results of a search are encrypted
  (https://github.com/decolua/9router/issues/3685: GLM runs tools of its own under `call_...`), as are
  the places in them that a text cites;
- `tool_result` is in user messages only; `input` is an object;
- text is not blank, and no message is empty.

The repair of a block depends only on its own message and those before it. So a new turn changes no byte of
earlier ones; the prompt cache and bound thinking (section 7) rely on that.

Searches in answers of other protocols become blocks here that no provider issued (`SEARCHED_HERE`). Other
providers of this format get them as text, too; what such providers issued themselves stays.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from hashlib import blake2b

import msgspec

from .issued import SEARCHED_HERE
from .json_edit import UNREADABLE, Body, BodyError, Edit, Span, delete_items, elements, members
from .turns import Turn, turns_of

NO_CONTENT = "(no content)"
"""Replaces an empty message or tool result."""

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_SERVER_ID = re.compile(r"srvtoolu_[a-zA-Z0-9_]+")
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_STEM = 40

SEARCHES_MADE_HERE = SEARCHED_HERE.encode()
"""Occurs in each search that the router made of another protocol's."""

_LEGAL_IDS = re.compile(r"(?:[a-zA-Z0-9_-]+\n)*+")
_MAYBE_BLANK = re.compile(rb'"(?:\s|[\x80-\xff]|\\[nrtu][0-9a-fA-F]{0,4})*+"')
"""A JSON text that may hold nothing but white space."""

_FILLED = msgspec.json.encode([{"type": "text", "text": NO_CONTENT}])


class Valid(msgspec.Struct, frozen=True):
    """The result of a repair; the edits go into `Body.edited`."""

    edits: list[Edit]
    ids: int = 0
    """Calls whose id was replaced, also in their results."""
    blank: int = 0
    """Blank texts dropped or filled."""
    server: int = 0
    """Blocks of server tools that are not the provider's own, dropped or written as text, and texts without
    their citations."""


class _Block(msgspec.Struct):
    type: str = ""
    id: str | None = None
    tool_use_id: str | None = None
    text: str | None = None
    title: str | None = None
    url: str | None = None
    encrypted_content: str | None = None
    encrypted_index: str | None = None
    citations: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()

    @property
    def is_blank(self) -> bool:
        return self.type == "text" and self.text is not None and not self.text.strip()

    @property
    def is_server_result(self) -> bool:
        """Whether it is the result of a server tool, or a tool result inside an answer."""
        return self.type.endswith("tool_result") and self.type != "mcp_tool_result"

    @property
    def is_servers(self) -> bool:
        """Whether it belongs to a server tool."""
        return self.type == "server_tool_use" or self.is_server_result

    @property
    def server_id(self) -> str | None:
        """The id of the call of a server tool that it is, or belongs to."""
        return self.id if self.type == "server_tool_use" else self.tool_use_id if self.is_servers else None


class _Message(msgspec.Struct):
    role: str = ""


_block = msgspec.json.Decoder(_Block)
_message = msgspec.json.Decoder(_Message)
_parts = msgspec.json.Decoder(str | list[_Block])


def made_valid(body: Body) -> Valid:
    """Edits that make the messages valid; unreadable values stay."""
    if not _is_suspect(turns_of(body)):
        return Valid([])
    places, walk = _messages(body), _Walk(body.readable)
    edits = [edit for at in places for edit in walk.message(at, is_last=at is places[-1])]
    return Valid(edits, walk.ids.replaced, walk.blank, walk.server)


def with_searches_as_text(body: Body) -> Valid:
    """Edits that write the searches made here as text, with title and URL of each result; unreadable values
    stay."""
    if SEARCHES_MADE_HERE not in body.readable:
        return Valid([])
    walk = _Walk(body.readable)
    return Valid([edit for at in _messages(body) for edit in walk.searches(at)], server=walk.server)


def _messages(body: Body) -> list[Span]:
    """The places of the messages; none where they cannot be read."""
    place = body.span("messages")
    if place is None:
        return []
    try:
        return elements(body.readable, place.value, place.end)
    except BodyError:
        return []


def _is_suspect(turns: list[Turn]) -> bool:
    """Whether anything in the messages may need a repair."""
    if any(not turn.content if isinstance(turn.content, list) else _is_blank(turn.content) for turn in turns):
        return True
    ids: list[str] = []
    for turn in turns:
        for block in turn.blocks():
            match block.type:
                case "text":
                    if _MAYBE_BLANK.fullmatch(block.text):
                        return True
                case "tool_use":
                    ids += [block.id] if isinstance(block.id, str) else []
                    if not isinstance(block.input, dict | msgspec.UnsetType):
                        return True
                case "tool_result":
                    parts = block.parts()
                    if turn.role == "assistant" or any(_MAYBE_BLANK.fullmatch(part.text) for part in parts):
                        return True
                case str(kind):
                    if kind == "server_tool_use" or kind.endswith("tool_result"):
                        return True
    return len(set(ids)) < len(ids) or not _LEGAL_IDS.fullmatch("".join(f"{id}\n" for id in ids))


def _is_blank(content: object) -> bool:
    return isinstance(content, str) and not content.strip()


class _Ids:
    """Gives each call a legal and unique id, and its result the same id."""

    def __init__(self) -> None:
        self.replaced = 0
        self._used: set[str] = set()
        self._made: Counter[str] = Counter()
        """Number of ids made for each original id."""
        self._waiting: dict[str, list[str]] = {}
        """Calls of the latest turn without a result: original id to the ids sent."""

    def next_turn(self) -> None:
        self._waiting.clear()

    def of_call(self, came: str) -> str:
        sent = came
        while not _ID.fullmatch(sent) or sent in self._used:
            text = f"{came}\n{self._made[came]}".encode(errors="surrogatepass")
            sent = f"{_stem(came)}_{blake2b(text, digest_size=4).hexdigest()}"
            self._made[came] += 1
        self.replaced += sent != came
        self._used.add(sent)
        self._waiting.setdefault(came, []).append(sent)
        return sent

    def of_result(self, came: str) -> str:
        """The new id of a result. Calls with the same original id get results in order; extra results get the
        id of the last call."""
        waiting = self._waiting.get(came)
        if not waiting:
            return came if _ID.fullmatch(came) else _stem(came)
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


def _stem(came: str) -> str:
    return _NOT_IN_ID.sub("_", came)[:_LONGEST_STEM] or "call"


class _Walk:
    """Visits the messages in order."""

    def __init__(self, raw: bytes) -> None:
        self.ids = _Ids()
        self.blank = self.server = 0
        self._raw = raw
        self._role = ""

    def message(self, at: Span, *, is_last: bool) -> list[Edit]:
        try:
            content = members(self._raw, at.value, at.end)["content"]
            role = _message.decode(memoryview(self._raw)[at.value : at.end]).role
            if role == "assistant" != self._role:
                self.ids.next_turn()
            self._role = role if role != "system" else self._role
            is_prefill = is_last and role == "assistant"
            if self._raw.startswith(b"[", content.value):
                return self._content(content, role, fills=not is_prefill)
        except (BodyError, KeyError, *UNREADABLE):
            return []
        return [] if is_prefill else self._text(content)

    def searches(self, at: Span) -> list[Edit]:
        """Writes the searches made here as text, and changes nothing else."""
        if self._raw.find(SEARCHES_MADE_HERE, at.value, at.end) < 0:
            return []
        try:
            content = members(self._raw, at.value, at.end)["content"]
            places = elements(self._raw, content.value, content.end)
        except (BodyError, KeyError):
            return []
        blocks = [self._read(place) for place in places]
        ours = {id for block in blocks if (id := block.server_id) and id.startswith(SEARCHED_HERE)}
        edits, gone = self._server_tools(places, blocks, ours) if ours else ([], set())
        if len(gone) == len(places):
            return [Edit(content.value, content.end, _FILLED)] if places else []
        return edits + delete_items(places, gone)

    def _text(self, content: Span) -> list[Edit]:
        try:
            text = msgspec.json.decode(memoryview(self._raw)[content.value : content.end], type=str)
        except UNREADABLE:
            return []
        if text.strip():
            return []
        self.blank += 1
        return [Edit(content.value, content.end, msgspec.json.encode(NO_CONTENT))]

    def _content(self, content: Span, role: str, *, fills: bool) -> list[Edit]:
        places = elements(self._raw, content.value, content.end)
        blocks = [self._read(at) for at in places]
        foreign = set(_foreign(blocks)) if role == "assistant" else set()
        edits, gone = self._server_tools(places, blocks, foreign)
        for index, (at, block) in enumerate(zip(places, blocks, strict=True)):
            if block.is_blank:
                gone.add(index)
                self.blank += 1
            elif block.type == "tool_use":
                edits += self._call(at, block)
            elif block.type == "tool_result" and block.tool_use_id not in foreign:
                edits += self._result(at, block)
        if len(gone) == len(places):
            self.blank += not places
            return [Edit(content.value, content.end, _FILLED)] if fills else []
        return edits + delete_items(places, gone)

    def _server_tools(
        self, places: list[Span], blocks: list[_Block], ids: Collection[str | None]
    ) -> tuple[list[Edit], set[int]]:
        """Writes the results with these ids as text, and takes from texts the citations that no provider
        encrypted. Also gives the indices of blocks that leave no text."""
        edits: list[Edit] = []
        gone: set[int] = set()
        for index, (at, block) in enumerate(zip(places, blocks, strict=True)):
            if block.type == "text" and not block.is_blank and _has_foreign_citations(block):
                self.server += 1
                cited = members(self._raw, at.value, at.end)["citations"]
                edits.append(Edit(cited.value, cited.end, b"null"))
            elif block.is_servers and block.server_id in ids:
                self.server += 1
                text = _result_text(block.content)
                edits += [Edit(at.value, at.end, _as_text(text))] if text else []
                gone |= set() if text else {index}
        return edits, gone

    def _read(self, at: Span) -> _Block:
        try:
            return _block.decode(memoryview(self._raw)[at.value : at.end])
        except UNREADABLE:
            return _Block()

    def _call(self, at: Span, block: _Block) -> Iterator[Edit]:
        fields = members(self._raw, at.value, at.end)
        if block.id is not None and (sent := self.ids.of_call(block.id)) != block.id:
            yield _replaced(fields["id"], sent)
        if bytes(block.input) and not bytes(block.input).startswith(b"{"):
            yield Edit(fields["input"].value, fields["input"].end, _as_object(block.input))

    def _result(self, at: Span, block: _Block) -> Iterator[Edit]:
        fields = members(self._raw, at.value, at.end)
        if (
            block.tool_use_id is not None
            and (sent := self.ids.of_result(block.tool_use_id)) != block.tool_use_id
        ):
            yield _replaced(fields["tool_use_id"], sent)
        if bytes(block.content).startswith(b"["):
            places = elements(self._raw, fields["content"].value, fields["content"].end)
            gone = {index for index, inner in enumerate(places) if self._read(inner).is_blank}
            self.blank += len(gone)
            if gone and len(gone) == len(places):
                yield Edit(fields["content"].value, fields["content"].end, _FILLED)
            else:
                yield from delete_items(places, gone)


def _foreign(blocks: list[_Block]) -> Iterator[str | None]:
    """The ids of blocks that belong to a server tool that another provider ran."""
    for block in blocks:
        if block.type == "server_tool_use" and not _SERVER_ID.fullmatch(block.id or ""):
            yield block.id
        elif block.is_server_result and (
            block.type == "tool_result"
            or not _SERVER_ID.fullmatch(block.tool_use_id or "")
            or any(part.type == "web_search_result" and not part.encrypted_content for part in _shown(block))
        ):
            yield block.tool_use_id


def _has_foreign_citations(block: _Block) -> bool:
    """Whether a text cites results of a search that another provider made."""
    cited = _decoded_parts(block.citations)
    return any(one.type == "web_search_result_location" and not one.encrypted_index for one in cited)


def _shown(block: _Block) -> list[_Block]:
    return _decoded_parts(block.content)


def _decoded_parts(raw: msgspec.Raw) -> list[_Block]:
    """The objects of a list; empty for anything else."""
    try:
        parts = _parts.decode(raw)
    except UNREADABLE:
        return []
    return parts if isinstance(parts, list) else []


def _result_text(content: msgspec.Raw) -> str:
    """The texts of a result, and the titles and URLs of its search results."""
    try:
        parts = _parts.decode(content)
    except UNREADABLE:
        return ""
    if isinstance(parts, str):
        return parts.strip()
    lines = (" ".join(filter(None, (part.title, part.url, part.text))).strip() for part in parts)
    return "\n".join(filter(None, lines))


def _as_text(text: str) -> bytes:
    return msgspec.json.encode({"type": "text", "text": text})


def _as_object(value: msgspec.Raw) -> bytes:
    """`input` as an object; arguments that are a JSON string are decoded."""
    try:
        text = msgspec.json.decode(value, type=str).encode()
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return b"{}"
    return text.strip()


def _replaced(at: Span, id: str) -> Edit:
    return Edit(at.value, at.end, msgspec.json.encode(id))
