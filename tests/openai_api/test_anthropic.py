"""Anthropic's messages on the wire: whole and streamed, beside chat, and each way to be refused. The engine is scripted."""

import json
from typing import Any, get_args, get_type_hints

import pytest
from anthropic.types import RawMessageStreamEvent
from anthropic.types.beta import message_create_params as beta_params
from anthropic.types.shared.error_type import ErrorType
from pydantic import TypeAdapter

from engine.errors import DeadlineError, EngineNotReadyError, QueueFullError, RequestError, StepError
from openai_api.answer.anthropic_models import AnthropicMessageAnswer
from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.settings import ServerSettings
from tests.openai_api.anthropic_bodies import (
    BODIES_OF_CLIENTS,
    CALL,
    CITY,
    COUNT,
    EPHEMERAL,
    NOW,
    PATH,
    RESULT,
    THOUGHT,
    TOOLS,
    WEATHER,
    assistant,
    events_of,
    message_body,
    message_of,
    text,
    user,
)
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import JSON, MESSAGES, Asgi, chat_body

CHAT = "/v1/chat/completions"
ANTHROPIC_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
ONE_CALL = '{"name": "weather", "parameters": {"city": "Z\u00fcrich {\\"} x"}}'
TWO_CALLS = f'Let me see.\n\n{ONE_CALL}\n\n{{"name": "now", "parameters": {{}}}}'


def ask(asgi: Asgi, **fields: Any) -> dict[str, Any]:
    """The message, the same whole and streamed, in Anthropic's types and ours."""
    whole = asgi.post(PATH, message_body(**fields))
    assert whole.status == 200, whole.body
    AnthropicMessageAnswer.model_validate(whole.json)
    events = events_of(asgi.post(PATH, message_body(**fields, stream=True)).body)
    for event in events:
        ANTHROPIC_EVENT.validate_python(event)
    assert without_ids(message_of(events)) == without_ids(whole.json)
    message: dict[str, Any] = whole.json
    return message


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    blocks = [{name: value for name, value in block.items() if name != "id"} for block in message["content"]]
    return {**message, "id": message["id"][:4], "content": blocks}


def test_a_text(asgi: Asgi) -> None:
    message = ask(asgi)
    assert message.pop("id").startswith("msg_")
    usage = {"input_tokens": 17, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 29}
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": MODEL_ID,
        "content": [text(TEXT)],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


@pytest.mark.parametrize("tokens_per_output", [1, 3, 1000])
def test_calls(asgi: Asgi, engine: FakeEngine, tokens_per_output: int) -> None:
    engine.script = Script(text=TWO_CALLS, tokens_per_output=tokens_per_output)
    message = ask(asgi, tools=TOOLS)
    spoken, *calls = message["content"]
    assert spoken == text("Let me see.")
    assert [(call["name"], call["input"]) for call in calls] == [
        ("weather", {"city": 'Z\u00fcrich {"} x'}),
        ("now", {}),
    ]
    assert len({call["id"] for call in calls}) == 2
    assert all(call["id"].startswith("toolu_") for call in calls)
    assert message["stop_reason"] == "tool_use"


def test_why_it_ended(asgi: Asgi, engine: FakeEngine) -> None:
    def end(**fields: Any) -> tuple[str, str | None]:
        message = ask(asgi, **fields)
        return message["stop_reason"], message["stop_sequence"]

    assert end(max_tokens=4) == ("max_tokens", None)
    assert end(stop_sequences=["zzz", "w\u00f6r"]) == ("stop_sequence", "w\u00f6r")
    assert end(stop_sequences=["zzz"], tools=TOOLS) == ("end_turn", None)
    assert end(stop_sequences=["zzz", "w\u00f6r"], tools=TOOLS) == ("stop_sequence", "w\u00f6r")
    engine.implicit_stop = ("w\u00f6r",)  # the format's own
    assert end() == ("end_turn", None)
    engine.implicit_stop = ()
    engine.script = Script(text="x" * 5000)
    assert end(max_tokens=4096) == ("model_context_window_exceeded", None)


def test_what_is_empty_or_cut_off(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="")
    assert ask(asgi)["content"] == []
    assert ask(asgi, max_tokens=0)["stop_reason"] == "max_tokens"
    engine.script = Script(text='{"name": "weather", "parameters": {"city": "Rome", "day": "Mon')
    message = asgi.post(PATH, message_body(tools=TOOLS)).json
    assert (message["content"][0]["input"], message["stop_reason"]) == ({"city": "Rome"}, "max_tokens")


def test_the_cache_is_counted_apart_where_something_is_marked(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(num_cached_tokens=16)
    plain = ask(asgi)["usage"]
    assert (plain["input_tokens"], plain["cache_read_input_tokens"]) == (17, 0)
    marked: list[dict[str, Any]] = [
        {"cache_control": EPHEMERAL},
        {"system": [text("", cache_control=EPHEMERAL)]},
        {"messages": [user(text("Hi", cache_control=EPHEMERAL))]},
        {"messages": [user({**RESULT, "content": [text("Hi", cache_control=EPHEMERAL)]})]},
        {"tools": [{**NOW, "cache_control": EPHEMERAL}]},
    ]
    for fields in marked:
        usage = ask(asgi, **fields)["usage"]
        assert usage["cache_read_input_tokens"] == 16
        assert usage["input_tokens"] + 16 == asgi.post(COUNT, message_body(**fields)).json["input_tokens"]


SAID_TO_CHAT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    (
        {"system": "Be brief.", "temperature": 0.5, "top_p": 0.5, "top_k": 3, "seed": 4, "stop_sequences": ["x"]},
        {
            "messages": [{"role": "system", "content": "Be brief."}, *MESSAGES],
            **{"temperature": 0.5, "top_p": 0.5, "top_k": 3, "seed": 4, "stop": ["x"]},
        },
    ),
    (
        {
            "tools": TOOLS,
            "messages": [user(text("A"), text("B")), assistant(THOUGHT, text("C"), CALL), user(RESULT, text("D"))],
        },
        {
            "messages": [
                user(text("A"), text("B")),
                {
                    "role": "assistant",
                    "content": "C",
                    "tool_calls": [
                        {
                            "id": "toolu_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Z\u00fcrich"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "toolu_1", "content": "Sunny"},
                {"role": "user", "content": "D"},
            ],
            "tools": [
                {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": CITY}},
                {"type": "function", "function": {"name": "now", "parameters": NOW["input_schema"]}},
            ],
        },
    ),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
        {
            "tools": [{"function": {"name": "weather", "description": "The weather", "parameters": CITY}}],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
        },
    ),
    (
        {"messages": [*MESSAGES, assistant(text("It is"))]},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "It is"}], "continue_final_message": True},
    ),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": CITY}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}},
    ),
]


@pytest.mark.parametrize(("fields", "chats"), SAID_TO_CHAT)
def test_the_engine_is_asked_what_chat_would_ask(
    asgi: Asgi, engine: FakeEngine, fields: dict[str, Any], chats: dict[str, Any]
) -> None:
    asked = []
    for path, body in ((PATH, message_body(**fields)), (CHAT, chat_body(max_tokens=256, **chats))):
        assert asgi.post(path, body).status == 200
        call = engine.calls[-1]
        asked.append((call.prompt_token_ids, call.params, engine.rendered[-1], engine.shown_tools))
    assert asked[0] == asked[1]


@pytest.mark.parametrize("name", BODIES_OF_CLIENTS)
def test_what_clients_send_is_answered_and_counted(asgi: Asgi, engine: FakeEngine, name: str) -> None:
    body = BODIES_OF_CLIENTS[name]
    counted = asgi.post(COUNT, body)
    assert (counted.status, engine.calls) == (200, [])
    answer = asgi.post(PATH, body)
    assert answer.status == 200, answer.body
    usage = (message_of(events_of(answer.body)) if body.get("stream") else answer.json)["usage"]
    assert counted.json == {"input_tokens": usage["input_tokens"]}
    assert counted.json["input_tokens"] == len(engine.calls[-1].prompt_token_ids)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "Invalid value for 'max_tokens'"),
    ({"messages": []}, "Invalid value for 'messages'"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "'messages[0].role'"),
    ({"messages": [user({"type": "image", "source": {}})]}, "Unsupported value for 'messages[0].content[0].type'"),
    ({"messages": [user(text("x"), {"type": "document"})]}, "Unsupported value for 'messages[0].content[1].type'"),
    ({"messages": [user({"type": "server_tool_use"})]}, "Unsupported value for 'messages[0].content[0].type'"),
    ({"messages": [user({"type": "text"})]}, "Missing required parameter: 'messages[0].content[0].text'"),
    ({"messages": [user(text(5))]}, "'messages[0].content[0].text'"),  # type: ignore[arg-type]
    ({"messages": [user({**RESULT, "content": [{"type": "image"}]})]}, "messages[0].content[0].content[0].type"),
    ({"messages": [user(CALL)]}, "'messages[0].content[0].type': such blocks are only in messages of role 'assistant'"),
    (
        {"messages": [assistant(RESULT)]},
        "'messages[0].content[0].type': such blocks are only in messages of role 'user'",
    ),
    ({"messages": [*MESSAGES, assistant(CALL)]}, "'messages[1].content': a call needs a 'tool_result'"),
    ({"messages": [assistant(*[CALL] * 129), user(RESULT)]}, "'messages[0].content': expected at most 128 'tool_use'"),
    ({"messages": [user(*[RESULT] * 4097)]}, "'messages': expected at most 4096"),
    ({"system": 5}, "Invalid value for 'system': expected a string or an array of text blocks"),
    ({"system": [{"type": "image"}]}, "'system[0].type'"),
    ({"temperature": 1.5}, "'temperature': expected a number from 0 to 1."),
    ({"top_p": 2}, "'top_p': expected a number from 0 to 1."),
    ({"stop_sequences": ["x"] * 17}, "'stop_sequences'"),
    ({"n": 2}, "Unknown parameter: 'n'."),
    ({"mcp_servers": [{"type": "url"}]}, "Unsupported parameter: 'mcp_servers'"),
    ({"container": "c"}, "Unsupported parameter: 'container'"),
    ({"thread": {"type": "create"}}, "Unsupported parameter: 'thread'"),
    ({"context_management": {"edits": [{"type": "forget"}]}}, "'context_management.edits[0].type'"),
    ({"thinking": {"type": "much"}}, "'thinking.type': expected one of"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "Unsupported value for 'tools[0].type'"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "Unsupported value for 'tools[0].type'"),
    ({"tools": [{"name": "x"}]}, "Missing required parameter: 'tools[0].input_schema'"),
    ({"tools": [{**NOW, "name": "a b"}]}, "'tools[0].name'"),
    ({"tools": [NOW, NOW]}, "'tools[1].name': expected a name that no other function has"),
    ({"tools": [{**NOW, "input_schema": {"type": "array"}}]}, "'tools[0].input_schema'"),
    ({"tools": [NOW, {**WEATHER, "input_schema": {"const": "impossible"}}]}, "'tools[1].input_schema': it is"),
    ({"tools": [NOW], "tool_choice": {"type": "tool", "name": "x"}}, "'tool_choice': expected the name of one"),
    ({"tools": [NOW], "tool_choice": {"type": "tool"}}, "Missing required parameter: 'tool_choice.name'"),
    ({"output_config": {"format": {"type": "xml"}}}, "'output_config.format.type'"),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": {"const": "impossible"}}}},
        "'output_config.format.schema': it is impossible",
    ),
    ({"output_format": {"type": "json_schema", "schema": {"const": "impossible"}}}, "'output_format.schema': it is"),
    (
        {
            "output_config": {"format": {"type": "json_schema", "schema": CITY}},
            "output_format": {"type": "json_schema", "schema": {}},
        },
        "'output_format' differs from 'output_config.format'",
    ),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_is_400_in_the_words_of_this_api(asgi: Asgi, fields: dict[str, Any], words: str) -> None:
    answer = asgi.post(PATH, message_body(**fields))
    assert (answer.status, answer.json["type"], answer.error["type"]) == (400, "error", "invalid_request_error")
    assert words in answer.error["message"]
    assert "function" not in answer.error["message"].replace("no other function", "")
    assert "response_format" not in answer.error["message"]


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (RequestError("Long.", code="context_length_exceeded"), 400, "invalid_request_error"),
        (QueueFullError("Full.", retry_after_s=9), 429, "rate_limit_error"),
        (EngineNotReadyError("Draining."), 503, "overloaded_error"),
        (DeadlineError("Late."), 504, "timeout_error"),
        (StepError("s3cr3t"), 500, "api_error"),
        (KeyError("s3cr3t"), 500, "api_error"),
    ],
)
def test_failures_before_and_after_the_first_byte(
    asgi: Asgi, engine: FakeEngine, error: Exception, status: int, word: str
) -> None:
    engine.script = Script(fail=error)
    for stream in (False, True):
        answer = asgi.post(PATH, message_body(stream=stream))
        assert (answer.status, answer.error["type"]) == (status, word)
        assert answer.json["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
        assert b"s3cr3t" not in answer.body
    engine.script = Script(fail=error, fail_at=3)
    *events, last = events_of(asgi.post(PATH, message_body(stream=True)).body)
    assert (last["type"], last["error"]["type"]) == ("error", word)
    assert {event["type"] for event in events} <= {"message_start", "content_block_start", "content_block_delta"}
    assert word in get_args(ErrorType)


def test_other_refusals(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(api_keys=("secret",), max_body_bytes=1000))
    key = {**JSON, "x-api-key": "secret", "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}

    def refused(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, str]:
        answer = asgi.request("POST", PATH, json.dumps(body).encode(), headers)
        return answer.status, answer.error["type"]

    assert refused(message_body(), JSON) == (401, "authentication_error")
    assert refused(message_body(model="claude"), key) == (404, "not_found_error")
    assert refused(message_body(system="x" * 1000), key) == (413, "request_too_large")
    assert asgi.request("POST", PATH, json.dumps(message_body()).encode(), key).status == 200


def test_a_long_silence_is_filled_with_pings(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(keep_alive_interval_s=0.02))
    engine.script = Script(prefill_s=0.1)
    events = events_of(asgi.post(PATH, message_body(stream=True)).body)
    assert events[0] == {"type": "ping"}
    assert message_of(events)["content"] == [text(TEXT)]


def test_the_models_in_the_form_of_who_asks(asgi: Asgi) -> None:
    for path in ("/v1/models", f"/v1/models/{MODEL_ID}"):
        assert "created_at" not in asgi.get(path).body.decode()
        told = asgi.request("GET", path, headers={"anthropic-version": "2023-06-01"}).json
        card = told["data"][0] if "data" in told else told
        assert (card["id"], card["created_at"]) == (MODEL_ID, "2023-11-14T22:13:20Z")


def test_every_field_that_anthropic_defines_is_in_the_table() -> None:
    known = {field.name for field in FIELDS_BY_ENDPOINT[PATH]}
    defined = set(get_type_hints(beta_params.MessageCreateParamsBase)) | {"stream"}
    assert defined - {"workspace_id"} <= known  # that one is a header
