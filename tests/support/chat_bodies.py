"""Messages bodies of every kind, as a client may send them and as none would."""

import string
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from signalbox.openai.ids import pack

TEXT = st.text(max_size=8) | st.sampled_from(["", " \n", "x-anthropic-billing-header: x", "Grüße 你好"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
IDS = st.sampled_from(["toolu_01", "toolu_02", "call_0", "aB3dE5gH7", "y" * 70, pack("functions.Read:0", {})])
NAMES = st.sampled_from(["Read", "Bash", "with.dots", "3d", "mcp__" + "long_" * 20]) | st.text(
    string.ascii_letters + "$.-_ü", min_size=1, max_size=5
)
CACHE = st.just({"type": "ephemeral"}) | st.just({"type": "ephemeral", "ttl": "1h"})

FILES = st.sampled_from(
    [
        {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
        {"type": "url", "url": "https://example.com/a.png"},
        {"type": "file", "file_id": "file_fake"},
    ]
)


def _block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields}, optional={"cache_control": CACHE})


def _several(*blocks: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(*blocks), max_size=3)


SAID = _block("text", text=TEXT)
IMAGE = _block("image", source=FILES)
SOURCE = (
    FILES
    | st.builds(lambda data: {"type": "text", "media_type": "text/plain", "data": data}, TEXT)
    | st.builds(lambda content: {"type": "content", "content": content}, TEXT | _several(SAID, IMAGE))
)
DOCUMENT = _block("document", source=SOURCE, title=TEXT | st.none(), context=TEXT)
FOUND = _block("search_result", source=TEXT, title=TEXT, content=_several(SAID))
REFERENCE = _block("tool_reference", tool_name=NAMES)
SHOWN = (SAID, IMAGE, DOCUMENT, FOUND)
CALL = _block("tool_use", id=IDS, name=NAMES, input=OBJECT)
THINKING = _block("thinking", thinking=TEXT, signature=TEXT) | _block("redacted_thinking", data=TEXT)
RESULT = st.fixed_dictionaries(
    {"type": st.just("tool_result"), "tool_use_id": IDS},
    optional={
        "content": TEXT | st.none() | st.lists(st.one_of(*SHOWN, IMAGE, REFERENCE), min_size=1, max_size=3),
        "is_error": st.booleans(),
        "cache_control": CACHE,
    },
)
DONE_KINDS = (
    *("web_search_tool_result", "web_fetch_tool_result", "tool_search_tool_result", "mcp_tool_result"),
    *("code_execution_tool_result", "bash_code_execution_tool_result", "advisor_tool_result"),
    "text_editor_code_execution_tool_result",
)
"""What Anthropic's own tools gave."""
DONE = st.builds(
    lambda kind, id, content: {"type": kind, "tool_use_id": id, "content": content},
    st.sampled_from(DONE_KINDS),
    IDS,
    TEXT
    | _several(SAID, _block("web_search_result", title=TEXT, url=TEXT, encrypted_content=TEXT))
    | _block("web_fetch_result", url=TEXT, content=DOCUMENT)
    | _block("code_execution_result", stdout=TEXT, stderr=TEXT, content=_several(OBJECT))
    | _block("tool_search_tool_search_result", tool_references=_several(REFERENCE))
    | _block("web_search_tool_result_error", error_code=TEXT),
)
SERVER = (
    _block("server_tool_use", id=IDS, name=NAMES, input=OBJECT)
    | _block("mcp_tool_use", id=IDS, name=NAMES, input=OBJECT, server_name=NAMES)
    | DONE
    | _block("container_upload", file_id=TEXT)
    | _block("compaction", content=TEXT | st.none())
    | _block("fallback", **{"from": OBJECT, "to": OBJECT})
)
CHANGE = st.builds(
    lambda kind, tool: {"type": kind, "tool": tool},
    st.sampled_from(["tool_addition", "tool_removal"]),
    st.builds(lambda name: {"type": "tool_reference", "name": name}, NAMES)
    | st.builds(lambda name: {"definition": {"name": name, "input_schema": {"type": "object"}}}, NAMES),
)
_FIELDS = (
    "type text thinking signature source id name input tool_use_id tool_name tool is_error title url stdout "
    "error_code cache_control content context"
)
_KINDS = "text image document tool_use tool_result thinking tool_reference tool_addition compaction x"
ODD = st.dictionaries(
    st.sampled_from(_FIELDS.split()), JSON | st.sampled_from(_KINDS.split()) | SOURCE | SAID, max_size=6
)

USER = st.builds(
    lambda content: {"role": "user", "content": content},
    TEXT | st.lists(st.one_of(*SHOWN, RESULT, RESULT), max_size=5),
)
ASSISTANT = st.builds(
    lambda content: {"role": "assistant", "content": content},
    TEXT | st.lists(SAID | CALL | CALL | THINKING | SERVER, max_size=5),
)
SYSTEM = st.builds(
    lambda content: {"role": "system", "content": content}, TEXT | st.lists(SAID | IMAGE | CHANGE, max_size=2)
)
STRANGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", None, 5])},
    optional={"content": JSON | ODD | st.lists(ODD | JSON, max_size=4)},
)


@st.composite
def rounds(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Calls, and then their results in any order, some of them twice or not at all, among what else the user
    and the operator say."""
    calls = draw(st.lists(CALL, min_size=1, max_size=3))
    results = [draw(RESULT) | {"tool_use_id": call["id"]} for call in calls]
    given_back = draw(st.lists(st.sampled_from(results), max_size=4))
    blocks = draw(st.permutations([*given_back, *draw(_several(*SHOWN))]))
    said = draw(st.lists(SAID | THINKING | SERVER, max_size=2))
    return [
        {"role": "assistant", "content": [*said, *calls]},
        *draw(st.lists(SYSTEM, max_size=1)),
        {"role": "user", "content": blocks},
    ]


MESSAGES = st.lists(
    rounds() | (USER | ASSISTANT | SYSTEM | STRANGE).map(lambda message: [message]), max_size=5
).map(lambda several: [message for some in several for message in some])
SCHEMAS = OBJECT | st.fixed_dictionaries(
    {"type": st.sampled_from(["object", "string", ["object", "null"], 5])},
    optional={
        "properties": st.dictionaries(NAMES, OBJECT, max_size=3) | JSON,
        "$ref": st.sampled_from(["#", "#/$defs/a", "#/nowhere", "https://example.com"]),
        "$defs": st.just({"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}}),
        "anyOf": st.lists(OBJECT, max_size=2),
        "required": JSON,
    },
)
TOOL = st.fixed_dictionaries({"name": NAMES, "input_schema": SCHEMAS}, optional={"description": TEXT | JSON})
FIELDS = {
    "system": TEXT | st.lists(SAID | IMAGE | DOCUMENT, max_size=3) | JSON,
    "tools": st.lists(TOOL | JSON, max_size=3) | JSON,
    "tool_choice": JSON
    | st.builds(
        lambda kind, name, once: {"type": kind, "name": name, "disable_parallel_tool_use": once},
        st.sampled_from(["auto", "any", "tool", "none"]),
        NAMES,
        st.booleans(),
    ),
    "max_tokens": st.integers(0, 10**6) | JSON,
    "stream": st.booleans() | JSON,
    "stop_sequences": st.lists(TEXT, max_size=6) | JSON,
    "temperature": st.floats(0, 1) | JSON,
    "top_k": st.integers(0, 9) | JSON,
    "thinking": st.sampled_from([{"type": "adaptive"}, {"type": "disabled"}, {"type": "enabled"}]) | JSON,
    "output_config": st.just({"effort": "max"}) | JSON,
    "output_format": st.builds(lambda schema: {"type": "json_schema", "schema": schema}, SCHEMAS) | JSON,
}
WHOLE = st.fixed_dictionaries({"messages": MESSAGES | JSON}, optional=FIELDS)


@st.composite
def mangled(draw: st.DrawFn) -> dict[str, Any]:
    """A body in which up to three values, at any depth, are something else or gone."""
    body: dict[str, Any] = deepcopy(draw(WHOLE))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = body
        while at:
            key = draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
            if not (isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 3))):
                if draw(st.booleans()):
                    at[key] = deepcopy(draw(JSON | ODD))
                else:
                    del at[key]
                break
            at = at[key]
    return body


BODIES = WHOLE | mangled()
