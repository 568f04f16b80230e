"""Messages bodies of every kind, as a client may send them and as none would."""

import string
from typing import Any

from hypothesis import strategies as st

from signalbox.translate.ids import pack

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

SOURCE = st.one_of(
    st.just({"type": "base64", "media_type": "image/png", "data": "AAAA"}),
    st.just({"type": "base64", "media_type": "application/pdf", "data": "AAAA"}),
    st.just({"type": "url", "url": "https://example.com/a.png"}),
    st.just({"type": "file", "file_id": "file_fake"}),
    st.builds(lambda data: {"type": "text", "media_type": "text/plain", "data": data}, TEXT),
)


def _block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields}, optional={"cache_control": CACHE})


SAID = _block("text", text=TEXT)
MEDIA = _block("image", source=SOURCE) | _block("document", source=SOURCE, title=TEXT)
CALL = _block("tool_use", id=IDS, name=NAMES, input=OBJECT)
THINKING = _block("thinking", thinking=TEXT, signature=TEXT)
RESULT = st.fixed_dictionaries(
    {"type": st.just("tool_result"), "tool_use_id": IDS},
    optional={
        "content": TEXT | st.lists(SAID | MEDIA, max_size=3),
        "is_error": st.booleans(),
        "cache_control": CACHE,
    },
)
SERVER = _block("server_tool_use", id=IDS, name=NAMES, input=OBJECT) | _block(
    "web_search_tool_result", tool_use_id=IDS, content=st.lists(OBJECT, max_size=2) | OBJECT
)
_FIELDS = (
    "type text thinking signature source id name input tool_use_id tool_name tool is_error title url stdout "
    "error_code cache_control content"
)
_KINDS = "text image document tool_use tool_result thinking tool_reference tool_addition compaction x"
ODD = st.dictionaries(
    st.sampled_from(_FIELDS.split()), JSON | st.sampled_from(_KINDS.split()) | SOURCE | SAID, max_size=6
)

USER = st.builds(
    lambda content: {"role": "user", "content": content},
    TEXT | st.lists(SAID | MEDIA | RESULT | RESULT, max_size=5),
)
ASSISTANT = st.builds(
    lambda content: {"role": "assistant", "content": content},
    TEXT | st.lists(SAID | CALL | CALL | THINKING | SERVER, max_size=5),
)
SYSTEM = st.builds(lambda text: {"role": "system", "content": text}, TEXT | st.lists(SAID, max_size=2))
STRANGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", None, 5])},
    optional={"content": JSON | ODD | st.lists(ODD | JSON, max_size=4)},
)
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
    "system": TEXT | st.lists(SAID | MEDIA, max_size=3) | JSON,
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
BODIES = st.fixed_dictionaries(
    {"messages": st.lists(USER | ASSISTANT | SYSTEM | STRANGE, max_size=7) | JSON}, optional=FIELDS
)
