"""Bodies of ``/v1/messages`` as Anthropic's clients write them, and what a client makes of its events."""

import json
from typing import Any

from tests.openai_api.fake_engine import MODEL_ID
from tests.openai_api.harness import MESSAGES

PATH, COUNT = "/v1/messages", "/v1/messages/count_tokens"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather", "input_schema": CITY}
NOW = {"name": "now", "input_schema": {"type": "object", "properties": {}}}
TOOLS = [WEATHER, NOW]
EPHEMERAL = {"type": "ephemeral"}


def message_body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL_ID, "max_tokens": 256, "messages": MESSAGES, **fields}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Z\u00fcrich"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny"}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}

BODIES_OF_CLIENTS: dict[str, dict[str, Any]] = {
    "a coding agent": message_body(
        max_tokens=32000,
        stream=True,
        system=[
            text("x-anthropic-billing-header: cc_version=2;"),
            text("You are an agent.", cache_control={**EPHEMERAL, "scope": "global"}),
            text("\nBe brief.", cache_control={**EPHEMERAL, "ttl": "1h"}),
        ],
        messages=[
            user(text("<system-reminder>\nx\n</system-reminder>\n"), text("Hi", cache_control=EPHEMERAL)),
            assistant(THOUGHT, text("I look."), CALL),
            user({**RESULT, "is_error": False, "cache_control": EPHEMERAL}, text("And now?")),
            assistant({"type": "redacted_thinking", "data": "eA=="}, text("Sunny.")),
            {"role": "system", "content": "Later words of the system."},
            user(text("Thanks")),
        ],
        tools=[
            {**WEATHER, "cache_control": EPHEMERAL, "strict": True, "eager_input_streaming": True},
            {**NOW, "type": "custom", "defer_loading": False, "input_schema": {"$schema": "x", "type": "object"}},
        ],
        tool_choice={"type": "auto", "disable_parallel_tool_use": False},
        metadata={"user_id": "user_1"},
        thinking={"type": "enabled", "budget_tokens": 31999},
        context_management={
            "edits": [
                {"type": "clear_thinking_20251015", "keep": "all"},
                {"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 100_000}},
            ]
        },
        output_config={"effort": "xhigh"},
        betas=["x-2026-01-01"],
    ),
    "adaptive thought": message_body(thinking={"type": "adaptive", "display": "omitted"}, temperature=1),
    "no thought": message_body(thinking={"type": "disabled"}, temperature=0.0, top_p=0.999, top_k=250),
    "a title in JSON": message_body(
        system="A title.",
        output_config={"format": {"type": "json_schema", "schema": CITY}, "effort": "low"},
        tools=[],
        stream=True,
    ),
    "an older place of it": message_body(output_format={"type": "json_schema", "schema": CITY}),
    "a prefill": message_body(messages=[*MESSAGES, {"role": "assistant", "content": "{"}], stop_sequences=["}"]),
    "a warm cache": message_body(max_tokens=0, cache_control=EPHEMERAL),
    "a whole message handed back": message_body(
        messages=[
            *MESSAGES,
            {
                **assistant({**CALL, "caller": {"type": "direct"}}),
                **{"id": "msg_1", "type": "message", "model": "x", "stop_reason": "tool_use", "stop_sequence": None},
                "usage": {"input_tokens": 1},
            },
            user({**RESULT, "content": [text("Sunny", citations=None)]}),
        ],
        tools=TOOLS,
        tool_choice={"type": "any"},
        service_tier="auto",
        anthropic_version="vertex-2023-10-16",
    ),
    "nothing asked for": message_body(
        **dict.fromkeys("system stop_sequences temperature top_p top_k tools tool_choice metadata container".split()),
        **dict.fromkeys("thinking service_tier output_config context_management cache_control speed stream".split()),
        mcp_servers=[],
    ),
}


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The data of each event, after checking that it is named by its type."""
    blocks = body.decode().removesuffix("\n\n").split("\n\n")
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def message_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of the events of a stream that ended well; they come in the documented order."""
    start, *growth, delta, stop = [event for event in events if event["type"] != "ping"]
    assert (start["type"], delta["type"], stop) == ("message_start", "message_delta", {"type": "message_stop"})
    message: dict[str, Any] = start["message"]
    pieces: list[str] | None = None  # of the open block
    for event in growth:
        if event["type"] == "content_block_start":
            assert (pieces, event["index"]) == (None, len(message["content"]))
            message["content"].append(dict(event["content_block"]))
            pieces = []
        else:
            assert event["index"] == len(message["content"]) - 1
            assert pieces is not None
            if event["type"] == "content_block_delta":
                pieces.append(event["delta"].get("text", event["delta"].get("partial_json")))
                continue
            assert event["type"] == "content_block_stop"
            _finish(message["content"][-1], "".join(pieces))
            pieces = None
    assert pieces is None
    return {**message, **delta["delta"], "usage": delta["usage"]}


def _finish(block: dict[str, Any], whole: str) -> None:
    if block["type"] == "text":
        block["text"] = whole
    elif whole:
        block["input"] = json.loads(whole)
