"""Tools on the wire: what a request may say of them, and how calls are told. The engine is scripted."""

import json
from dataclasses import replace
from typing import Any

import pytest

from engine.grammar.spec import GrammarKind
from gemma3.text.tool_functiongemma import FUNCTIONGEMMA
from gemma3.text.tool_json import GOOGLES_JSON
from openai_api.answer.models import ChatCompletion, ChatCompletionChunk
from tests.openai_api.fake_engine import END_OF_TURN_ID, FakeEngine, Script
from tests.openai_api.harness import Answer, Asgi, chat_body, chunks_of, events_of

CHAT = "/v1/chat/completions"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": CITY}}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOW]
CALL = '{"name": "weather", "parameters": {"city": "Z\u00fcrich {\\"} x"}}'
ARGUMENTS = '{"city": "Z\u00fcrich {\\"} x"}'
TWO_CALLS = f'Let me see.\n\n{CALL}\n\n{{"name": "now", "parameters": {{}}}}'


def ask(asgi: Asgi, **fields: Any) -> Answer:
    return asgi.post(CHAT, chat_body(**{"tools": TOOLS, **fields}))


def message_of(asgi: Asgi, **fields: Any) -> Any:
    """Of the one choice, the same whole and streamed, as the models have it."""
    whole = ask(asgi, **fields)
    assert whole.status == 200, whole.body
    ChatCompletion.model_validate(whole.json)
    choice = whole.json["choices"][0]
    streamed = streamed_choices(ask(asgi, **fields, stream=True))[0]
    assert without_ids(streamed["message"]) == without_ids(choice["message"])
    assert streamed["finish_reason"] == choice["finish_reason"]
    return {**choice["message"], "finish_reason": choice["finish_reason"]}


def streamed_choices(answer: Answer) -> dict[int, Any]:
    """What a client makes of the deltas."""
    choices: dict[int, Any] = {}
    for chunk in chunks_of(answer.body):
        ChatCompletionChunk.model_validate(chunk)
        for each in chunk["choices"]:
            choice = choices.setdefault(each["index"], {"message": {"content": ""}, "finish_reason": None})
            assert choice["finish_reason"] is None, "something follows the end"
            add_delta(choice["message"], each["delta"])
            choice["finish_reason"] = each["finish_reason"]
    return choices


def add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    message["content"] += delta.get("content") or ""
    for call in delta.get("tool_calls", []):
        calls = message.setdefault("tool_calls", [])
        if call["index"] == len(calls):
            assert call["function"]["arguments"] == ""
            assert call["type"] == "function"
            calls.append({"id": call["id"], "function": dict(call["function"])})
        else:
            assert set(call) == {"index", "function"}
            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if "function_call" in delta:
        called = message.setdefault("function_call", {"name": "", "arguments": ""})
        called["name"] += delta["function_call"].get("name", "")
        called["arguments"] += delta["function_call"]["arguments"]


def without_ids(message: dict[str, Any]) -> Any:
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return message.get("content") or None, calls, message.get("function_call")


@pytest.mark.parametrize("tokens_per_output", [1, 3, 1000])
def test_calls_whole_and_streamed(asgi: Asgi, engine: FakeEngine, tokens_per_output: int) -> None:
    engine.script = Script(text=TWO_CALLS, tokens_per_output=tokens_per_output)
    message = message_of(asgi)
    assert message["content"] == "Let me see."
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "weather", "arguments": ARGUMENTS},
        {"name": "now", "arguments": "{}"},
    ]
    assert all(call["id"].startswith("call_") and call["type"] == "function" for call in message["tool_calls"])
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    assert message["finish_reason"] == "tool_calls"


def test_the_content_of_a_mere_call_is_null(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=f" ```json\n{CALL}\n```")
    message = message_of(asgi)
    assert message["content"] is None
    assert len(message["tool_calls"]) == 1


def test_text_without_a_call_is_an_ordinary_answer(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=' {"name" is a text')
    message = message_of(asgi)
    assert message == {"role": "assistant", "content": ' {"name" is a text', "refusal": None, "finish_reason": "stop"}


def test_without_tools_or_with_none_nothing_is_a_call(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL)
    for fields in ({"tools": []}, {"tools": None}, {"tool_choice": "none"}, {"tool_choice": {"type": "none"}}):
        message = message_of(asgi, **fields)
        assert (message["content"], message["finish_reason"]) == (CALL, "stop")
        assert "tool_calls" not in message
        assert engine.shown_tools is None
        assert engine.calls[-1].params.grammar is None


def test_what_a_user_or_a_tool_says_is_no_call(asgi: Asgi, engine: FakeEngine) -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": CALL}
    assert "tool_calls" not in message_of(asgi, messages=[{"role": "user", "content": CALL}, result])


def test_several_choices(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL)
    whole = ask(asgi, n=3).json["choices"]
    streamed = streamed_choices(ask(asgi, n=3, stream=True))
    assert [choice["finish_reason"] for choice in whole] == ["tool_calls"] * 3
    assert [without_ids(choice["message"]) for choice in whole] == [
        without_ids(streamed[i]["message"]) for i in range(3)
    ]
    assert whole[1]["message"]["content"] == "1."
    assert len({choice["message"]["tool_calls"][0]["id"] for choice in whole}) == 3


def test_the_older_form(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL)
    functions = [tool["function"] for tool in TOOLS]
    message = message_of(asgi, tools=None, functions=functions)
    assert message["function_call"] == {"name": "weather", "arguments": ARGUMENTS}
    assert (message["content"], message["finish_reason"]) == (None, "function_call")
    assert "tool_calls" not in message
    assert "between" not in grammar_of(engine), "it has room for one call"
    message_of(asgi, tools=None, functions=functions, function_call={"name": "now"})
    assert '"weather' not in grammar_of(engine)
    assert ask(asgi, tools=None, functions=functions, function_call="none").json["choices"][0]["message"]["content"]


def grammar_of(engine: FakeEngine) -> str:
    grammar = engine.calls[-1].params.grammar
    assert grammar is not None
    assert grammar.spec.kind is GrammarKind.LARK
    return grammar.spec.text


def test_choices_become_grammars(asgi: Asgi, engine: FakeEngine) -> None:
    named = {"type": "function", "function": {"name": "now"}}
    allowed = {"mode": "required", "tools": [named]}
    for choice, is_free, is_parallel, names in [
        (None, True, False, {"weather", "now"}),
        ("auto", True, False, {"weather", "now"}),
        ("required", False, True, {"weather", "now"}),
        ("any", False, True, {"weather", "now"}),
        (named, False, None, {"now"}),
        ({"type": "function", "name": "now"}, False, True, {"now"}),
        ({"type": "allowed_tools", "allowed_tools": allowed}, False, True, {"now"}),
        ({"type": "allowed_tools", "allowed_tools": {**allowed, "mode": "auto"}}, True, True, {"now"}),
    ]:
        assert ask(asgi, tool_choice=choice, parallel_tool_calls=is_parallel).status == 200
        text = grammar_of(engine)
        assert ("TEXT" in text) is is_free, choice
        assert ("between" in text) is bool(is_parallel), choice
        assert {name for name in ("weather", "now") if f'"{name}\\"' in text} == names
        assert engine.shown_tools is not None
        assert [tool["function"]["name"] for tool in engine.shown_tools] == ["weather", "now"]  # type: ignore[index]


def test_several_calls_where_the_model_was_taught_them_or_they_are_asked_for(asgi: Asgi, engine: FakeEngine) -> None:
    for form, asked, is_parallel in [(GOOGLES_JSON, None, False), (GOOGLES_JSON, True, True), (GOOGLES_JSON, False, False),
                                     (FUNCTIONGEMMA, None, True), (FUNCTIONGEMMA, False, False)]:  # fmt: skip
        engine.tool_form = form
        assert ask(asgi, parallel_tool_calls=asked).status == 200
        assert ("between" in grammar_of(engine)) is is_parallel
    named = {"type": "function", "function": {"name": "now"}}
    assert ask(asgi, tool_choice=named).status == 200
    assert "between" not in grammar_of(engine)


def test_arguments_are_closed_objects(asgi: Asgi, engine: FakeEngine) -> None:
    def schema(parameters: Any) -> Any:
        tool = {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": False}}
        assert ask(asgi, tools=[tool]).status == 200
        return json.JSONDecoder().raw_decode(grammar_of(engine).split("%json ", 1)[1])[0]

    empty = {"type": "object", "additionalProperties": False}
    assert schema({"type": ["object", "null"], "required": []}) == {**empty, "required": []}
    assert schema(None) == schema({}) == empty
    assert schema({"type": "object", "properties": {}}) == {**empty, "properties": {}}
    named = {"title": {"type": "string", "title": "T"}, "b": {"properties": {"c": {}}, "type": "object"}}
    assert schema({"properties": named, "$schema": "s", "description": "d"}) == {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "b": {"properties": {"c": {}}, "type": "object", "additionalProperties": False},
        },
        "additionalProperties": False,
    }
    for left_alone in (
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "required": ["x"]},
        {"allOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "additionalProperties": True}}},
    ):
        assert schema(left_alone) == left_alone


def test_stop_strings_end_text_and_no_call(asgi: Asgi, engine: FakeEngine) -> None:
    engine.implicit_stop = ("\nUser:",)
    engine.script = Script(text=CALL)
    assert message_of(asgi, stop=["rich", "}"])["tool_calls"][0]["function"]["arguments"] == ARGUMENTS
    assert engine.calls[-1].params.stop == ()
    assert engine.calls[-1].params.stop_token_ids == (END_OF_TURN_ID,)
    assert 'stopped[lazy]: TEXT ("rich" | "}" | "\\nUser:")' in grammar_of(engine)
    engine.script = Script(text="To be rich is nice")
    message = message_of(asgi, stop="rich")
    assert (message["content"], message["finish_reason"]) == ("To be ", "stop")


@pytest.mark.parametrize("num_chars", range(10, len(CALL), 7))
def test_a_call_that_is_cut_off_is_one_of_length(asgi: Asgi, engine: FakeEngine, num_chars: int) -> None:
    engine.script = Script(text=CALL)
    message = message_of(asgi, max_tokens=num_chars)
    assert message["finish_reason"] == "length"
    if "tool_calls" in message:
        assert ARGUMENTS.startswith(message["tool_calls"][0]["function"]["arguments"].removesuffix("\ufffd"))


def test_a_call_that_a_stop_token_cuts_off_is_one_of_length(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL)
    (token_id,) = engine.tokenizer.encode("x")
    message = message_of(asgi, stop_token_ids=[token_id])
    assert message["finish_reason"] == "length"
    assert message["tool_calls"][0]["function"]["arguments"] == ARGUMENTS.partition("x")[0]


def test_log_probabilities_and_token_ids_are_of_all_tokens(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL, tokens_per_output=2)
    fields = {"logprobs": True, "return_token_ids": True}
    whole = ask(asgi, **fields).json["choices"][0]
    chunks = [chunk["choices"][0] for chunk in chunks_of(ask(asgi, **fields, stream=True).body)]
    told = [entry for chunk in chunks if chunk["logprobs"] for entry in chunk["logprobs"]["content"]]
    assert told == whole["logprobs"]["content"]
    assert len(told) == len(CALL.encode()) + 1
    assert [i for chunk in chunks for i in chunk.get("token_ids", [])] == whole["token_ids"]


def test_a_follow_up(asgi: Asgi, engine: FakeEngine) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    result = {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "sunny"}
    for content in ({"content": None}, {}, {"content": ""}):
        asked = {"role": "assistant", "tool_calls": [call], **content}
        for fields in ({}, {"tools": None}, {"tool_choice": "none"}):
            assert ask(asgi, messages=[{"role": "user", "content": "Hi"}, asked, result], **fields).status == 200
            assert engine.rendered[-1][1].tool_calls[0].name == "weather"


def test_a_structured_answer_beside_tools(asgi: Asgi, engine: FakeEngine) -> None:
    answer = {"type": "json_schema", "json_schema": {"name": "A", "schema": CITY}}
    engine.script = Script(text='{"name": "weather", "age": 3}')
    message = message_of(asgi, response_format=answer)
    assert (message["content"], message["finish_reason"]) == ('{"name": "weather", "age": 3}', "stop")
    assert "start: answer | called" in grammar_of(engine)
    engine.script = Script(text=CALL)
    assert message_of(asgi, response_format=answer)["tool_calls"]
    assert message_of(asgi, response_format=answer, tool_choice="required")["tool_calls"]
    assert "answer:" not in grammar_of(engine)
    assert message_of(asgi, structured_outputs={"regex": "a/b+"})["tool_calls"]
    assert "answer: %lark {\nstart: /a\\/b+/\n}" in grammar_of(engine)


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [function(name="a b")]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [function(name="")]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [function(name="x" * 65)]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [function(), function()]}, "tools[1].function.name", "invalid_value"),
        ({"tools": [function(name=f"f{i}") for i in range(129)]}, "tools", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [function(frob=1)]}, "tools[0].function.frob", "unknown_parameter"),
        ({"tools": [function(parameters=[])]}, "tools[0].function.parameters", "invalid_value"),
        ({"tools": [function(parameters={"enum": ["impossible"]})]}, "tools[0].function.parameters", "invalid_json_schema"),
        ({"tools": [function(parameters={"type": "string"})]}, "tools[0].function.parameters", "invalid_json_schema"),
        ({"tools": [function(strict="yes")]}, "tools[0].function.strict", "invalid_value"),
        ({"tools": "x"}, "tools", "invalid_value"),
        ({"tools": [], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "invalid_value"),
        ({"tools": None, "function_call": {"name": "f"}}, "function_call", "invalid_value"),
        ({"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
        ({"tool_choice": 5}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name", "invalid_value"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": TOOLS}}},
         "tool_choice.allowed_tools.mode", "invalid_value"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
         "tool_choice.allowed_tools.tools", "invalid_value"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function()]}}},
         "tool_choice", "invalid_value"),
        ({"functions": [{"name": "f"}]}, "functions", "invalid_value"),
        ({"tools": None, "functions": [{"name": "f"}], "function_call": "required"}, "function_call", "invalid_value"),
        ({"tools": None, "functions": [{"name": "f"}, {"name": "f"}]}, "functions[1].name", "invalid_value"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "invalid_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(asgi: Asgi, fields: dict[str, Any], param: str, code: str) -> None:
    answer = ask(asgi, **fields)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code), answer.error


@pytest.mark.parametrize("tools", [None, []])
def test_required_asks_for_nothing_where_there_is_nothing_to_call(asgi: Asgi, tools: list[Any] | None) -> None:
    assert ask(asgi, tools=tools, tool_choice="required").status == 200


def test_a_name_without_tools_is_refused_in_openais_words(asgi: Asgi) -> None:
    named = {"type": "function", "function": {"name": "f"}}
    message = ask(asgi, tools=None, tool_choice=named).error["message"]
    assert message == "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."


@pytest.mark.parametrize("stream", [False, True])
def test_an_output_that_is_no_call_fails_that_request_alone(asgi: Asgi, engine: FakeEngine, stream: bool) -> None:
    """No grammar allows it; a scripted engine does as it likes."""
    engine.script = Script(text='{"name": 5, "parameters": {}}' + "x" * 100)
    answer = ask(asgi, stream=stream)
    error = json.loads(events_of(answer.body)[-1])["error"] if stream else answer.error
    assert (answer.status, error["code"]) == (200 if stream else 500, "internal_error")
    engine.script = Script(text=CALL)
    assert message_of(asgi)["tool_calls"]


def test_a_form_that_fails_ends_that_request_alone(asgi: Asgi, engine: FakeEngine) -> None:
    class Broken:
        definitions = ()

        def lark(self, schema: object) -> str:
            raise RuntimeError("broken")

        def scanner(self) -> Any:
            raise RuntimeError("broken")

    engine.tool_form = replace(GOOGLES_JSON, arguments=Broken())
    assert (ask(asgi).status, ask(asgi).error["code"]) == (500, "internal_error")
    assert ask(asgi, tools=None).status == 200
