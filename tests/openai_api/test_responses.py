"""``/v1/responses`` on the wire: what is asked of the engine, the answer, and the order of its events. The engine is
scripted; OpenAI's SDK has the types.
"""

import json
import re
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from engine.errors import StepError
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import Answer, Asgi, chat_body
from tests.openai_api.test_tools import ARGUMENTS, CALL, CITY, TWO_CALLS, WEATHER

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TOOLS = [{"type": "function", **WEATHER["function"]}, {"type": "function", "name": "now"}]  # type: ignore[dict-item]
EVENT = TypeAdapter[Any](ResponseStreamEvent)
# The order that OpenAI documents: what is around items, and what is in each of them.
LETTERS = {
    "created": "c",
    "in_progress": "p",
    "output_item.added": "<",
    "content_part.added": "[",
    "output_text.delta": "t",
    "output_text.done": "T",
    "content_part.done": "]",
    "function_call_arguments.delta": "a",
    "function_call_arguments.done": "A",
    "output_item.done": ">",
    "completed": "C",
    "incomplete": "I",
    "failed": "F",
}
ORDER = re.compile(r"cp(<(\[t*T\]|a*A)>)+[CI]")


def ask(asgi: Asgi, **fields: Any) -> Answer:
    return asgi.post(RESPONSES, {"model": MODEL_ID, "input": "Hi", **fields})


def events_of(answer: Answer) -> list[dict[str, Any]]:
    """Of a stream, each as the SDK types it, with the line that names it and its number."""
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream"), answer.body
    blocks = answer.body.decode().split("\n\n")
    assert blocks.pop() == ""
    events = []
    for number, block in enumerate(blocks):
        named, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert named == f"event: {event['type']}"
        assert event["sequence_number"] == number
        EVENT.validate_python(event)
        events.append(event)
    return events


def ended(asgi: Asgi, **fields: Any) -> dict[str, Any]:
    """The response, after holding the stream of it to the same."""
    whole = ask(asgi, **fields)
    assert whole.status == 200, whole.body
    Response.model_validate(whole.json)
    events = events_of(ask(asgi, **fields, stream=True))
    letters = "".join(LETTERS[event["type"].removeprefix("response.")] for event in events)
    assert ORDER.fullmatch(letters), letters
    assert without_ids(events[-1]["response"]) == without_ids(whole.json)
    assert as_told(events) == events[-1]["response"]["output"]
    return whole.json  # type: ignore[no-any-return]


def as_told(events: list[dict[str, Any]]) -> list[Any]:
    """The output that a client makes of the deltas, which the events at the end of each item have too."""
    output: list[Any] = []
    for event in events:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert event["output_index"] == len(output)
                output.append(json.loads(json.dumps(event["item"])))
            case "content_part.added":
                output[-1]["content"].append(event["part"])
            case "output_text.delta":
                assert event["item_id"] == output[-1]["id"]
                output[-1]["content"][0]["text"] += event["delta"]
                output[-1]["content"][0]["logprobs"] += event["logprobs"]
            case "function_call_arguments.delta":
                output[-1]["arguments"] += event["delta"]
            case "output_text.done":
                assert event["text"] == output[-1]["content"][0]["text"]
            case "function_call_arguments.done":
                assert event["arguments"] == output[-1]["arguments"]
            case "output_item.done":
                output[-1]["status"] = event["item"]["status"]
                assert event["item"] == output[-1]
    return output


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    output = [{**item, "id": "", "call_id": ""} for item in response["output"]]
    return {**response, "id": "", "output": output, "created_at": 0, "completed_at": 0}


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


@pytest.mark.parametrize("tokens_per_output", [1, 7, 1000])
def test_a_text_whole_and_streamed(asgi: Asgi, engine: FakeEngine, tokens_per_output: int) -> None:
    engine.script = Script(tokens_per_output=tokens_per_output, num_cached_tokens=3)
    response = ended(asgi, instructions="Be brief.", metadata={"a": "b"}, user="u", temperature=0.5)
    assert text_of(response) == TEXT
    assert (response["status"], response["incomplete_details"], response["error"]) == ("completed", None, None)
    assert response["completed_at"] >= response["created_at"]
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 3
    assert response["usage"]["total_tokens"] == response["usage"]["input_tokens"] + response["usage"]["output_tokens"]
    told = {name: response[name] for name in ("instructions", "metadata", "user", "temperature", "top_p", "model")}
    assert told == {
        "instructions": "Be brief.", "metadata": {"a": "b"}, "user": "u", "temperature": 0.5, "top_p": 0.95,
        "model": MODEL_ID,
    }  # fmt: skip


def test_an_answer_that_is_cut_is_incomplete(asgi: Asgi) -> None:
    response = ended(asgi, max_output_tokens=3)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][-1]["status"] == "incomplete"
    assert response["completed_at"] is None


def test_an_empty_answer_is_a_message(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="")
    for fields in ({}, {"tools": TOOLS}):
        response = ended(asgi, **fields)
        assert [item["type"] for item in response["output"]] == ["message"]
        assert text_of(response) == ""


@pytest.mark.parametrize("tokens_per_output", [1, 3, 1000])
def test_calls_whole_and_streamed(asgi: Asgi, engine: FakeEngine, tokens_per_output: int) -> None:
    engine.script = Script(text=TWO_CALLS, tokens_per_output=tokens_per_output)
    response = ended(asgi, tools=TOOLS, include=["message.output_text.logprobs"])
    kinds = [(item["type"], item.get("name"), item.get("arguments")) for item in response["output"]]
    assert kinds == [
        ("message", None, None),
        ("function_call", "weather", ARGUMENTS),
        ("function_call", "now", "{}"),
    ]
    assert len({item["id"] for item in response["output"]}) == 3
    assert len({item["call_id"] for item in response["output"][1:]}) == 2
    assert response["tools"][0]["parameters"] == CITY


def test_a_call_that_is_cut_is_incomplete(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL)
    response = ended(asgi, tools=TOOLS, max_output_tokens=45)
    assert response["output"][-1]["type"] == "function_call"
    assert (response["status"], response["output"][-1]["status"]) == ("incomplete", "incomplete")


def test_a_namespace_is_told_with_its_functions(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL)
    response = ended(asgi, tools=[TOOLS[1], {"type": "namespace", "name": "skies", "tools": [TOOLS[0]]}])
    assert [(item["name"], item["namespace"]) for item in response["output"]] == [("weather", "skies")]
    wrong = [{"type": "namespace", "name": "skies", "tools": [{**TOOLS[0], "name": "a b"}]}]
    assert ask(asgi, tools=wrong).error["param"] == "tools[0].tools[0].name"


CONVERSATION: list[tuple[list[dict[str, Any]], Any, str | None]] = [
    ([{"role": "user", "content": "Hi"}], "Hi", None),
    ([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}], "Hi", "S"),
    (
        [{"role": "user", "content": "AB"}, {"role": "assistant", "content": "C"}, {"role": "user", "content": "D"}],
        [
            {"role": "user", "content": [{"type": "input_text", "text": "A"}, {"type": "input_text", "text": "B"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "?"}]},
            {
                "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "C", "annotations": [], "logprobs": []}],
            },
            {"type": "message", "role": "user", "content": "D"},
        ],
        None,
    ),
    (
        [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant", "content": "Let me see.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                    {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        ],
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}", "status": "completed"},
            {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "now", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
        ],
        None,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "items", "instructions"), CONVERSATION)
def test_the_engine_is_asked_what_chat_asks(
    asgi: Asgi, engine: FakeEngine, messages: Any, items: Any, instructions: str | None
) -> None:
    shape = {"name": "n", "schema": CITY}
    settings = {"temperature": 0.5, "seed": 7, "top_k": 5, "stop": ["zzz"], "logit_bias": {"5": 1}, "top_p": 0.5}
    bodies: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"max_tokens": 9}, {"max_output_tokens": 9}),
        ({"tools": [WEATHER]}, {"tools": TOOLS[:1]}),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"tools": TOOLS[:1], "tool_choice": {"type": "function", "name": "weather"}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": shape}},
            {"text": {"format": {"type": "json_schema", **shape}}},
        ),
        (
            {"logprobs": True, "top_logprobs": 2},
            {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
        ),
    ]
    for chat, own in bodies:
        assert asgi.post(CHAT, chat_body(messages=messages, **settings, **chat)).status == 200
        answer = ask(asgi, input=items, instructions=instructions, **settings, **own)
        assert answer.status == 200, answer.body
        of_chat, of_response = engine.calls[-2:]
        assert of_response.prompt_token_ids == of_chat.prompt_token_ids
        assert of_response.params == of_chat.params
        assert engine.rendered[-1] == engine.rendered[-2]


def test_log_probabilities_are_those_of_chat(asgi: Asgi) -> None:
    chat = asgi.post(CHAT, chat_body(logprobs=True, top_logprobs=2)).json
    response = ended(asgi, top_logprobs=2, include=["message.output_text.logprobs"])
    assert response["output"][0]["content"][0]["logprobs"] == chat["choices"][0]["logprobs"]["content"]
    assert ended(asgi, top_logprobs=2)["output"][0]["content"][0]["logprobs"] == []


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": 5}, "invalid_value", "input"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"input": [{"content": "x"}]}, "missing_required_parameter", "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]}]},
            "unsupported_parameter",
            "input[0].content[1].type",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "missing_required_parameter", "input[0].call_id"),
        (
            {"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]},
            "invalid_value",
            "input[0].call_id",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "item_not_found", "input[0].id"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "invalid_value", "input[0].type"),
        ({"input": "x" * 50_000}, "context_length_exceeded", "input"),
        ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"include": ["x"]}, "invalid_value", "include[0]"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n"}}},
            "missing_required_parameter",
            "text.format.schema",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"title": "impossible"}}}},
            "invalid_json_schema",
            "text.format.schema",
        ),
        ({"text": {"format": {"type": "x"}}}, "invalid_value", "text.format.type"),
        ({"text": {"verbosity": "high"}}, "unsupported_parameter", "text.verbosity"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "invalid_value", "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "invalid_value", "tools[0].type"),
        ({"tools": [{"type": "web_search", "external_web_access": True}]}, "invalid_value", "tools[0].type"),
        ({"tools": [TOOLS[1], {"type": "mcp", "server_label": "x"}]}, "invalid_value", "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "invalid_value", "tools[1].name"),
        ({"tools": [{**TOOLS[0], "parameters": {"type": "array"}}]}, "invalid_json_schema", "tools[0].parameters"),
        (
            {"tools": [{"type": "web_search", "external_web_access": False}, {**TOOLS[0], "name": "a b"}]},
            "invalid_value",
            "tools[1].name",
        ),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "x"}}, "invalid_value", "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "invalid_value", "tool_choice.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "x"}}, "invalid_value", "tool_choice.mode"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"prompt": {"id": "p"}}, "unsupported_parameter", "prompt"),
        ({"reasoning": {"effort": "high"}}, "unsupported_parameter", "reasoning"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"no_such": 1}, "unknown_parameter", "no_such"),
        ({"truncation": "x"}, "invalid_value", "truncation"),
        ({"metadata": {"a": 1}}, "invalid_value", "metadata.a"),
        ({"previous_response_id": "resp_x"}, "previous_response_not_found", "previous_response_id"),
    ],
)
def test_errors_name_the_fields_of_a_response(asgi: Asgi, change: Any, code: str, param: str) -> None:
    answer = ask(asgi, **change)
    assert answer.status in (400, 404)
    assert (answer.error["code"], answer.error["param"]) == (code, param), answer.error
    for name in ("'messages", "response_format", "max_completion_tokens", ".function."):
        assert name not in answer.error["message"]


def test_what_asks_for_nothing_is_taken(asgi: Asgi) -> None:
    neutral: dict[str, Any] = {
        "background": False, "conversation": None, "reasoning": {"effort": "low", "summary": "auto"}, "n": 1,
        "text": {"verbosity": "medium"}, "service_tier": "auto", "truncation": "disabled", "max_tool_calls": 3,
        "include": ["reasoning.encrypted_content", "web_search_call.action.sources"], "top_logprobs": 0,
        "stream_options": {"include_obfuscation": True}, "client_metadata": {"a": 1}, "prompt_cache_key": "k",
        "tools": [{"type": "web_search", "external_web_access": False}], "tool_choice": "auto", "store": False,
        "parallel_tool_calls": True, "safety_identifier": "s", "context_management": [], "metadata": {},
    }  # fmt: skip
    assert text_of(ended(asgi, **neutral)) == TEXT


def test_an_error_after_the_start_is_told_twice(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(fail=StepError("x"), fail_at=2)
    *_, failed, error = events_of(ask(asgi, stream=True))
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"]["code"] == "server_error"
    assert (error["type"], error["code"], error["error"]["code"]) == ("error", "step_failed", "step_failed")


def test_what_is_too_long_loses_its_oldest_items(asgi: Asgi, engine: FakeEngine) -> None:
    turns = [
        {"role": role, "content": f"{number} " + "x" * 700} for number in range(6) for role in ("user", "assistant")
    ]
    items = [*turns, {"role": "user", "content": "last"}]
    assert ask(asgi, input=items).error["code"] == "context_length_exceeded"
    response = ended(asgi, input=items, truncation="auto", instructions="Be brief.")
    assert response["truncation"] == "auto"
    kept = [message.content for message in engine.rendered[-1]]
    assert kept[0] == "Be brief."
    assert kept[1].startswith("4 ")
    assert kept[-1] == "last"
    assert ask(asgi, input="x" * 50_000, truncation="auto").error["code"] == "context_length_exceeded"


def test_input_tokens_are_counted_without_an_answer(asgi: Asgi, engine: FakeEngine) -> None:
    counted = asgi.post(f"{RESPONSES}/input_tokens", {"input": "Hi", "instructions": "Be brief."}).json
    assert engine.calls == []
    usage = ask(asgi, instructions="Be brief.").json["usage"]
    assert counted == {"object": "response.input_tokens", "input_tokens": usage["input_tokens"]}


def test_whatever_the_model_is_called(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(serves_any_model_name=True))
    assert ask(asgi, model="gpt-5").json["model"] == "gpt-5"
