"""Requests in the shape of Claude Code's, of a given size."""

import json

LINE = (
    "def handle(self, event):\n    # keep the state small\n    return self.table[event.kind](event)\n"
    'Real files have "quotes", back\\slashes, tabs\tand signs such as \u2713 in them.\n'
)


def text(length: int) -> str:
    return (LINE * (length // len(LINE) + 1))[:length]


def tool(number: int) -> dict[str, object]:
    properties = {
        "path": {"type": "string", "description": text(120)},
        "limit": {"type": "number", "description": text(80)},
        "mode": {"type": "string", "enum": ["a", "b", "c"], "description": text(90)},
    }
    schema = {"type": "object", "additionalProperties": False, "required": ["path"], "properties": properties}
    return {"name": f"tool_{number}", "description": text(1800), "input_schema": schema}


def turn(number: int, length: int) -> list[dict[str, object]]:
    """A call of a tool, and its result of so many characters."""
    call = f"toolu_{number:06d}"
    used = {"type": "tool_use", "id": call, "name": "tool_1", "input": {"path": f"/src/f{number}.py"}}
    result = {"type": "tool_result", "tool_use_id": call, "content": text(length)}
    return [
        {"role": "assistant", "content": [{"type": "text", "text": text(200)}, used]},
        {"role": "user", "content": [result]},
    ]


def body(model: str, size: int, *, events: int, gap: float = 0.0, stream: bool = True) -> bytes:
    """About `size` bytes; `tests/bench/provider.py` answers with so many events."""
    asked = {"type": "text", "text": f"BENCH:events={events},gap={gap:g}; Please answer."}
    made: dict[str, object] = {
        "model": model,
        "max_tokens": 1024,
        "stream": stream,
        "metadata": {"user_id": "user_bench_account__session_0000"},
        "messages": [{"role": "user", "content": [asked]}],
    }
    if size <= 8192:
        left = size - len(json.dumps(made)) - 40
        made["system"] = [{"type": "text", "text": "x" * max(1, left)}]
        return json.dumps(made).encode()
    instructions = {"type": "text", "text": text(14_000), "cache_control": {"type": "ephemeral"}}
    made["system"] = [{"type": "text", "text": text(200)}, instructions]
    made["tools"] = [tool(number) for number in range(18)]
    length = 3_000 if size < 400_000 else 20_000
    each = len(json.dumps(turn(0, length)))
    count = max(0, (size - len(json.dumps(made))) // each)
    made["messages"] = [{"role": "user", "content": [asked]}] + [
        message for number in range(count) for message in turn(number, length)
    ]
    return json.dumps(made).encode()
