"""Messages as clients and SDKs send them, and what of each reaches the prompt."""

from typing import Any

import pytest

from gemma3.text.chat import Message, ToolCall
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import Asgi, chat_body

CHAT = "/v1/chat/completions"
FIRST, LAST = {"role": "user", "content": "a"}, {"role": "user", "content": "c"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLED = (ToolCall("f", '{"x": 1}', "c1"),)


def rendered(asgi: Asgi, engine: FakeEngine, *messages: dict[str, Any]) -> list[Message]:
    answer = asgi.post(CHAT, chat_body(messages=list(messages)))
    assert answer.status == 200, answer.body
    return engine.rendered[-1]


TRIMMINGS: list[dict[str, Any]] = [
    {"refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": None, "parsed": None},
    {"annotations": [{"type": "url_citation"}], "id": "msg_1", "index": 0, "finish_reason": "stop", "status": "completed"},
    {"reasoning_content": "", "reasoning": None, "thinking_blocks": [], "provider_specific_fields": {}},
    {"reasoning_content": "thought", "reasoning": "thought", "reasoning_details": [{}], "thinking": "thought"},
    {"thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}], "provider_specific_fields": {"a": 1}},
    {"cache_control": {"type": "ephemeral"}, "images": [], "tool_calls": [], "parsed": {"a": [1]}},
    {"weight": 1, "timestamp": 1_700_000_000, "created_at": "2026-01-01", "type": "message", "usage": {"x": 1}},
    {"additional_kwargs": {"refusal": None}, "response_metadata": {"model": "m"}, "usage_metadata": {"input_tokens": 1}},
    {"type": "text", "example": False, "source": "gemma", "models_usage": {"prompt_tokens": 1}},
    {"provider_data": {"model": "m"}, "providerMetadata": {"a": {}}, "providerOptions": {}, "createdAt": "2026-01-01"},
    {"parentId": "p", "childrenIds": [], "model": "m", "done": True, "sources": [], "files": [], "partial": False},
    {"messageId": "m", "sender": "Gemma", "isCreatedByUser": False, "tokenCount": 3, "attachments": [], "parts": []},
    {"name": None, "tool_call_id": None, "prefix": True, "images": None, "whatever": None},
]  # fmt: skip


@pytest.mark.parametrize("trimmings", TRIMMINGS, ids=lambda each: next(iter(each)))
def test_an_answers_trimmings_change_nothing(asgi: Asgi, engine: FakeEngine, trimmings: dict[str, Any]) -> None:
    plain = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert rendered(asgi, engine, FIRST, {"role": "assistant", "content": "b", **trimmings}, LAST) == plain


@pytest.mark.parametrize("name", ["files", "attachments", "parts", "toolInvocations", "invalid_tool_calls", "images"])
def test_what_would_be_part_of_the_conversation_is_not_passed_over(asgi: Asgi, name: str) -> None:
    message = {"role": "assistant", "content": "b", name: [{"text": "x"}]}
    answer = asgi.post(CHAT, chat_body(messages=[FIRST, message, LAST]))
    assert (answer.status, answer.error["param"]) == (400, f"messages[1].{name}")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, Message("assistant", "")),
        ({"content": None}, Message("assistant", "")),
        ({"content": ""}, Message("assistant", "")),
        ({"content": []}, Message("assistant", "")),
        ({"content": None, "tool_calls": []}, Message("assistant", "")),
        ({"content": None, "refusal": "No."}, Message("assistant", "No.")),
        ({"content": "b", "refusal": "No."}, Message("assistant", "b")),
        ({"tool_calls": [CALL]}, Message("assistant", "", tool_calls=CALLED)),
        ({"content": "b", "tool_calls": [{**CALL, "index": 0}]}, Message("assistant", "b", tool_calls=CALLED)),
        ({"tool_calls": [{"function": {"name": "f"}}]}, Message("assistant", "", tool_calls=(ToolCall("f", "{}"),))),
        (
            {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": 1}, "parsed_arguments": {}}}]},
            Message("assistant", "", tool_calls=CALLED),
        ),
        (
            {"content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
            Message("assistant", "", tool_calls=(ToolCall("f", '{"x": 1}'),)),
        ),
        ({"role": "model", "content": "b"}, Message("assistant", "b")),
        ({"role": "tool", "content": "r", "tool_call_id": "c1"}, Message("tool", "r", tool_call_id="c1")),
        ({"role": "tool", "content": [{"type": "text", "text": "r"}]}, Message("tool", "r")),
        ({"role": "tool", "content": None, "tool_call_id": "c1"}, Message("tool", "", tool_call_id="c1")),
        ({"role": "ipython", "content": "r"}, Message("tool", "r")),
        ({"role": "function", "name": "f", "content": "r"}, Message("function", "r", name="f")),
        ({"role": "user", "name": "bob", "content": "b"}, Message("user", "b", name="bob")),
        ({"role": "user", "content": []}, Message("user", "")),
        ({"role": "system", "name": "s", "content": "late"}, Message("system", "late", name="s")),
        ({"role": "developer", "content": "late"}, Message("developer", "late")),
    ],
    ids=str,
)
def test_what_reaches_the_prompt(asgi: Asgi, engine: FakeEngine, message: dict[str, Any], expected: Message) -> None:
    assert rendered(asgi, engine, FIRST, {"role": "assistant", **message}, LAST)[1] == expected


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}],
        [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b", "annotations": [], "logprobs": []}],
        [{"type": "refusal", "refusal": "ab", "text": None}],
        ["a", {"type": "text", "text": "b", "image_url": None, "state": "done", "providerMetadata": {}}],
        [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "ab", "index": 1}],
        [
            {"type": "redacted_thinking", "data": "x"},
            {"type": "reasoning", "text": "t"},
            {"type": "text", "text": "ab"},
        ],
        [{"type": "text", "text": "ab", "prompt_cache_breakpoint": {"mode": "explicit"}, "id": "p1", "extras": {}}],
    ],
)
def test_parts_that_are_texts(asgi: Asgi, engine: FakeEngine, parts: list[dict[str, Any]]) -> None:
    assert rendered(asgi, engine, {"role": "assistant", "content": parts}, LAST)[0] == Message("assistant", "ab")


@pytest.mark.parametrize(
    ("part", "code", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "u"}}, "unsupported_parameter", "type"),
        ({"type": "input_audio", "input_audio": {}}, "unsupported_parameter", "type"),
        ({"type": ["text"], "text": "x"}, "unsupported_parameter", "type"),
        ({"type": "input_text"}, "invalid_value", "text"),
        ({"type": "refusal", "refusal": 5}, "invalid_value", "text"),
        ({"type": "text", "text": "x", "frob": 1}, "unknown_parameter", "frob"),
        ({"text": "x"}, "missing_required_parameter", "type"),
    ],
)
def test_parts_that_are_none(asgi: Asgi, part: dict[str, Any], code: str, param: str) -> None:
    answer = asgi.post(CHAT, chat_body(messages=[{"role": "user", "content": [part]}]))
    expected = (400, code, f"messages[0].content[0].{param}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == expected


def test_a_last_message_that_is_a_prefix_is_continued(asgi: Asgi, engine: FakeEngine) -> None:
    def prompt(message: dict[str, Any], **fields: Any) -> str:
        assert asgi.post(CHAT, chat_body(messages=[FIRST, message], **fields)).status == 200
        return engine.tokenizer.decode(engine.calls[-1].prompt_token_ids)

    begun = {"role": "assistant", "content": "b"}
    assert prompt({**begun, "prefix": True}) == "user: a\nassistant: b"
    assert prompt({**begun, "prefix": False}) == prompt(begun) == "user: a\nassistant: b\nmodel: "
    assert prompt({**begun, "prefix": True}, continue_final_message=False) == prompt(begun)


def test_arguments_are_no_way_around_the_bound_on_text(asgi: Asgi) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "x" * 2_000_000}}
    answer = asgi.post(CHAT, chat_body(messages=[FIRST, {"role": "assistant", "tool_calls": [call]}, LAST]))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_value", "messages")
    assert "characters" in answer.error["message"]


def test_messages_to_tokenize_are_the_same(asgi: Asgi, engine: FakeEngine) -> None:
    asked = {"role": "assistant", "content": None, "tool_calls": [CALL], "annotations": []}
    assert asgi.post("/tokenize", {"messages": [FIRST, asked, LAST]}).status == 200
    assert engine.rendered[-1][1] == Message("assistant", "", tool_calls=CALLED)
