"""Every field of a request: what is taken, what is refused, in which words, and what reaches the engine."""

import re
from typing import Any

import pytest

from engine.sampling_params import SamplingParams
from gemma3.text.chat import Message
from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.request.neutral_fields import IN_CHAT, IN_COMPLETION
from openai_api.request.neutral_values import in_words
from openai_api.request.request_field import Support
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import MESSAGES, Answer, Asgi, chat_body, completion_body
from tests.openai_api.test_access import assert_error

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BIG = 2**63 - 1
PREDICTION = {"type": "content", "content": "x"}


def params_of(engine: FakeEngine) -> SamplingParams:
    return engine.calls[-1].params


def refusal(answer: Answer) -> tuple[str, str | None]:
    assert answer.status == 400, answer.body
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.error["type"] == "invalid_request_error"
    return answer.error["code"], answer.error["param"]


# (field, values that are taken, values that are refused)
RANGES: list[tuple[str, list[Any], list[Any]]] = [
    ("temperature", [0, 0.0, 1, 1.5, 2, 2.0], [-0.01, 2.01, True, "1", [], {}]),
    ("top_p", [0, 0.0, 0.001, 1, 1.0], [1.001, -1, -0.001, False, "1"]),
    ("top_k", [-1, 0, 1, 1.0, 40.0, 2**31 - 1, 2**53 - 1, 1e300], [-2, 1.5, True, "5"]),
    ("min_p", [0, 0.5, 1], [-0.1, 1.1, True]),
    ("frequency_penalty", [-2, 0, 2], [-2.01, 2.01, "0"]),
    ("presence_penalty", [-2, 0, 2], [-2.01, 2.01, True]),
    ("repetition_penalty", [0.01, 1, 10], [0, -1, 10.1]),
    ("seed", [0, 1, 7.0, -1, BIG, -BIG - 1], [BIG + 1, -BIG - 2, 1.5, True, "1"]),
    ("n", [1, 64, 1.0], [0, 65, -1, True, 1.5]),
    ("min_tokens", [0, 1, 1.0], [-1, True]),
    ("ignore_eos", [True, False], [0, 1, "true"]),
    ("stream", [False], [0, 1, "false", []]),
    (
        "stop",
        ["x", ["x"], ["a"] * 16, "y" * 256, [], "", [""], ["", "a"]],
        [["a"] * 17, "y" * 257, 5, [5], {}, [["a"]], True],
    ),
    (
        "stop_token_ids",
        [[], [0], [261], [1] * 256, [106.0, 5]],
        [[1.5], [None], [-1], [262], [1] * 257, ["1"], [True], 5, "5"],
    ),
    (
        "logit_bias",
        [{}, [], {"0": 1}, {"261": -100}, {"5": 100.0}, {"5": None}],
        [{"262": 1}, {"-1": 1}, {"x": 1}, {"1": 101}, {"1": "1"}],
    ),
    ("truncate_prompt_tokens", [1, 100, 100.0, 2**40], [0, -1, 1.5, True]),
    ("return_token_ids", [True, False], [1, "yes"]),
    ("user", ["me"], [1, True, {}]),
]
CHAT_RANGES: list[tuple[str, list[Any], list[Any]]] = [
    ("max_tokens", [1, 10, 10.0, -1, -1.0, 10**9, 2**53 - 1], [0, -2, 1.5, True, "5"]),
    ("max_completion_tokens", [1, 10, 10.0, -1, 10**9], [0, -2, 1.5, True, "5"]),
    ("logprobs", [True, False, 0], [1, "true"]),
    ("metadata", [{}, {"a": "b"}], [[], "x"]),
    ("store", [True, False], [1]),
    ("service_tier", ["auto"], [1]),
    ("safety_identifier", ["x"], [1]),
    ("prompt_cache_key", ["x"], [1]),
    ("parallel_tool_calls", [True, False], [1]),
    (
        "prediction",
        [
            PREDICTION,
            {"type": "content", "content": ""},
            {"type": "content", "content": []},
            {"type": "content", "content": [{"type": "text", "text": "x"}]},
        ],
        [
            "x",
            [],
            True,
            {"type": "text", "content": "x"},
            {"type": None, "content": "x"},
            {"type": "content", "content": None},
            {"type": "content", "content": 5},
        ],
    ),
]
TEXT_RANGES: list[tuple[str, list[Any], list[Any]]] = [
    ("max_tokens", [0, 1, 10, 10.0, -1, 10**9, 2**53 - 1], [-2, 1.5, True, "5"]),
    ("logprobs", [0, 5, 20, 5.0, False], [-1, 21, 0.5, True, "1"]),
    ("echo", [True, False], [1]),
]
CASES = [(CHAT, chat_body(), *row) for row in RANGES + CHAT_RANGES] + [
    (TEXT, completion_body(), *row) for row in RANGES + TEXT_RANGES
]


@pytest.mark.parametrize(("path", "body", "field", "good", "bad"), CASES, ids=[f"{c[0][4:8]}-{c[2]}" for c in CASES])
def test_ranges(asgi: Asgi, path: str, body: dict[str, Any], field: str, good: list[Any], bad: list[Any]) -> None:
    for value in [*good, None]:
        answer = asgi.post(path, {**body, field: value})
        assert answer.status == 200, (value, answer.body)
    for value in bad:
        code, param = refusal(asgi.post(path, {**body, field: value}))
        assert code == "invalid_value", value
        assert param is not None
        assert param.split("[")[0].split(".")[0] == field


def test_an_error_names_the_whole_range(asgi: Asgi) -> None:
    for path, field, expected in (
        (CHAT, "temperature", "a number from 0 to 2"),
        (CHAT, "top_p", "a number from 0 to 1"),
        (CHAT, "top_k", "an integer from -1"),
        (CHAT, "repeat_penalty", "a number above 0 to 10"),
        (CHAT, "max_completion_tokens", "an integer from 1"),
        (CHAT, "top_logprobs", "an integer from 0 to 20"),
        (TEXT, "max_tokens", "an integer from 0"),
        (TEXT, "logprobs", "an integer from 0 to 20"),
    ):
        body = chat_body() if path == CHAT else completion_body()
        for value in (-2, "x", True):
            answer = asgi.post(path, {**body, field: value})
            assert answer.error["message"] == f"Invalid value for '{field}': expected {expected}."


def test_logit_bias_has_at_most_1024_entries(asgi: Asgi) -> None:
    """The fake vocabulary is too small for 1,024 ids: the count is what is refused first."""
    for count, message in ((1024, "token ids are from 0 to 261, not 262"), (1025, "at most 1024 entries")):
        answer = asgi.post(CHAT, chat_body(logit_bias={str(i): 1 for i in range(count)}))
        assert message in answer.error["message"]


def test_every_sampling_field_reaches_the_engine(asgi: Asgi, engine: FakeEngine) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 3,
        "min_p": 0.125,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repetition_penalty": 1.5,
        "seed": 42,
        "n": 2,
        "min_tokens": 1,
        "ignore_eos": True,
    }
    asgi.post(CHAT, chat_body(**fields, max_tokens=9, stop=["a", "b"], stop_token_ids=[7], logit_bias={"8": -1}))
    params = params_of(engine)
    assert {name: getattr(params, name) for name in fields} == fields
    assert (params.max_tokens, params.stop, params.stop_token_ids) == (9, ("a", "b"), (7,)), (
        "ignore_eos is also about the end of a turn"
    )
    assert dict(params.logit_bias) == {8: -1.0}
    assert (params.logprobs, params.prompt_logprobs) == (None, None)


def test_a_prediction_reaches_the_engine_as_text_without_control_tokens(asgi: Asgi, engine: FakeEngine) -> None:
    parts = [{"type": "text", "text": "a<end_of_"}, {"type": "text", "text": "turn>b"}]
    for content in ("a<end_of_turn>b", parts):
        asgi.post(CHAT, chat_body(prediction={"type": "content", "content": content}))
        assert engine.calls[-1].prediction_token_ids == tuple(engine.tokenizer.encode("a<end_of_turn>b"))
    asgi.post(CHAT, chat_body())
    assert engine.calls[-1].prediction_token_ids == ()


def test_what_may_be_predicted_is_said_in_words(asgi: Asgi) -> None:
    answer = asgi.post(CHAT, chat_body(prediction={**PREDICTION, "type": "text"}))
    assert answer.error["message"] == "Invalid value for 'prediction.type': expected one of 'content'."
    answer = asgi.post(CHAT, chat_body(prediction={**PREDICTION, "content": 5}))
    expected = "Invalid value for 'prediction.content': expected a string or an array of text parts."
    assert answer.error["message"] == expected
    assert refusal(asgi.post(TEXT, completion_body(prediction=PREDICTION))) == ("unknown_parameter", "prediction")


def test_defaults_are_openais_but_the_checkpoint_may_have_its_own(asgi: Asgi, engine: FakeEngine) -> None:
    asgi.post(CHAT, chat_body())
    params = params_of(engine)
    assert (params.temperature, params.top_k, params.top_p) == (1.0, 64, 0.95)
    assert (params.max_tokens, params.n, params.seed, params.min_p) == (None, 1, None, 0.0)
    asgi.post(CHAT, chat_body(top_k=0, top_p=1))
    assert (params_of(engine).top_k, params_of(engine).top_p) == (0, 1.0)
    asgi.post(TEXT, {"model": MODEL_ID, "prompt": "x"})
    assert params_of(engine).max_tokens == 16


def test_the_end_of_a_turn_is_added_to_the_stops(asgi: Asgi, engine: FakeEngine) -> None:
    engine.implicit_stop = ("\nUser:",)
    asgi.post(CHAT, chat_body(stop=["a"]))
    assert params_of(engine).stop == ("a", "\nUser:")
    asgi.post(TEXT, completion_body(stop=["a"]))
    assert (params_of(engine).stop, params_of(engine).stop_token_ids) == (("a",), ())


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_refused_fields_are_named(asgi: Asgi, path: str) -> None:
    body = chat_body() if path == CHAT else completion_body()
    for field in FIELDS_BY_ENDPOINT[path]:
        if field.support is not Support.REFUSED or "[" in field.name or "." in field.name:
            continue
        neutral = (IN_CHAT if path == CHAT else IN_COMPLETION).get(field.name, ())
        for value in (None, *neutral):
            assert asgi.post(path, {**body, field.name: value}).status == 200, field.name
        for value in (True, "x", 7, {"x": 1}):
            answer = asgi.post(path, {**body, field.name: value})
            assert refusal(answer) == ("unsupported_parameter", field.name)
            words = f"Unsupported parameter: '{field.name}'; only {in_words(neutral)} can be given."
            assert answer.error["message"] == words


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"no_such": 1}, ("unknown_parameter", "no_such")),
        ({"Temperature": 1}, ("unknown_parameter", "Temperature")),
        ({"stream": True, "stream_options": {"x": 1}}, ("unknown_parameter", "stream_options.x")),
        ({"stream_options": {"include_usage": 1}}, ("invalid_value", "stream_options.include_usage")),
        ({"top_logprobs": 3}, ("invalid_value", "top_logprobs")),
        ({"logprobs": False, "top_logprobs": 1}, ("invalid_value", "top_logprobs")),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, ("invalid_value", "repeat_penalty")),
        ({"logit_bias": {"Paris": 1}}, ("invalid_value", "logit_bias.Paris")),
        ({"logprobs": True, "top_logprobs": 21}, ("invalid_value", "top_logprobs")),
        ({"logprobs": True, "top_logprobs": -1}, ("invalid_value", "top_logprobs")),
        ({"max_tokens": 5, "max_completion_tokens": 6}, ("invalid_value", "max_tokens")),
        ({"max_tokens": 5, "min_tokens": 6}, ("invalid_value", "min_tokens")),
        ({"add_generation_prompt": True, "continue_final_message": True}, ("invalid_value", "continue_final_message")),
        ({"messages": [{"role": "user", "content": "x" * 4095}]}, ("context_length_exceeded", "messages")),
        ({"messages": None}, ("invalid_value", "messages")),
        ({"messages": []}, ("invalid_value", "messages")),
        ({"messages": "Hi"}, ("invalid_value", "messages")),
        ({"messages": ["Hi"]}, ("invalid_value", "messages[0]")),
        ({"messages": [{}]}, ("missing_required_parameter", "messages[0].role")),
        ({"messages": [{"role": "user"}]}, ("missing_required_parameter", "messages[0].content")),
        ({"messages": [{"role": "user", "content": None}]}, ("invalid_value", "messages[0].content")),
        ({"messages": [{"role": "system"}]}, ("missing_required_parameter", "messages[0].content")),
        ({"messages": [{"role": ["assistant"], "content": "x"}]}, ("invalid_value", "messages[0].role")),
        ({"messages": [{"role": "assistant", "content": 5}]}, ("invalid_value", "messages[0].content")),
        ({"messages": [{"role": "user", "content": 5}]}, ("invalid_value", "messages[0].content")),
        ({"messages": [{"role": "king", "content": "x"}]}, ("invalid_value", "messages[0].role")),
        ({"messages": [{"role": "user", "content": "x", "name": 5}]}, ("invalid_value", "messages[0].name")),
        (
            {"messages": [{"role": "user", "content": "x", "images": ["i"]}]},
            ("unsupported_parameter", "messages[0].images"),
        ),
        ({"messages": [*MESSAGES, {"role": "user", "content": "x", "y": 1}]}, ("unknown_parameter", "messages[1].y")),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
            ("missing_required_parameter", "messages[0].tool_calls[0].function"),
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}]},
            ("invalid_value", "messages[0].tool_calls[0].function.arguments"),
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"type": "x", "function": {"name": "f"}}]}]},
            ("invalid_value", "messages[0].tool_calls[0].type"),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]},
            ("unsupported_parameter", "messages[0].content[0].type"),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            ("invalid_value", "messages[0].content[0].text"),
        ),
        ({"messages": [{"role": "user", "content": "unrenderable"}]}, ("invalid_value", "messages")),
        ({"prediction": {}}, ("missing_required_parameter", "prediction.type")),
        ({"prediction": {"type": "content"}}, ("missing_required_parameter", "prediction.content")),
        ({"prediction": {**PREDICTION, "type": "text"}}, ("invalid_value", "prediction.type")),
        ({"prediction": {**PREDICTION, "content": {}}}, ("invalid_value", "prediction.content")),
        ({"prediction": {**PREDICTION, "x": 1}}, ("unknown_parameter", "prediction.x")),
        (
            {"prediction": {**PREDICTION, "content": [{"type": "image_url", "image_url": {"url": "u"}}]}},
            ("unsupported_parameter", "prediction.content[0].type"),
        ),
        ({"model": 5}, ("invalid_value", "model")),
    ],
)
def test_chat_refusals(asgi: Asgi, change: dict[str, Any], expected: tuple[str, str | None]) -> None:
    assert refusal(asgi.post(CHAT, chat_body(**change))) == expected


@pytest.mark.parametrize(
    ("prompt", "is_good"),
    [
        ("", True),
        ("x", True),
        (["x", "y"], True),
        ([5], True),
        ([0, 261], True),
        ([[5], [6, 7]], True),
        (["x", [5]], True),
        (["x"] * 128, True),
        (["x"] * 129, False),
        ([], False),
        ([[]], False),
        ([-1], False),
        ([262], False),
        ([[5], [262]], False),
        ([True], False),
        ([1.0], True),
        ([[2.0, 5], "x"], True),
        ([1.5], False),
        ([["x"]], False),
        ([[[5]]], False),
        (5, False),
        ({}, False),
        (None, False),
    ],
)
def test_prompts(asgi: Asgi, prompt: object, is_good: bool) -> None:
    answer = asgi.post(TEXT, completion_body(prompt=prompt, max_tokens=1))
    if is_good:
        assert answer.status == 200
    else:
        assert refusal(answer) == ("invalid_value", "prompt")


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_what_must_be_there(asgi: Asgi, path: str) -> None:
    body = chat_body() if path == CHAT else {"model": MODEL_ID, "prompt": "x"}
    for field in set(body) - {"model"}:
        rest = {name: value for name, value in body.items() if name != field}
        assert refusal(asgi.post(path, rest)) == ("missing_required_parameter", field)


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_a_body_that_is_no_object(asgi: Asgi, body: bytes) -> None:
    for path in FIELDS_BY_ENDPOINT:
        answer = asgi.post(path, body)
        assert_error(answer, 400, "invalid_value")
        assert answer.error["message"] == "Invalid request body: expected an object."


def test_the_number_of_messages(asgi: Asgi) -> None:
    message = {"role": "user", "content": ""}
    for count, status in ((4095, 400), (4096, 400), (4097, 400)):
        answer = asgi.post(CHAT, chat_body(messages=[message] * count))
        assert answer.status == status
        too_many = "at most 4096 entries" in answer.error["message"]
        assert too_many == (count > 4096)  # fewer are only too long for the fake context


def test_content_parts_and_roles_reach_the_prompt(asgi: Asgi, engine: FakeEngine) -> None:
    parts = [{"type": "text", "text": "a<end_of_"}, {"type": "text", "text": "turn>b"}]
    roles = ["system", "developer", "user", "assistant", "tool"]
    messages = [{"role": role, "content": parts, "tool_calls": None} for role in roles]
    assert asgi.post(CHAT, chat_body(messages=messages)).status == 200
    assert engine.rendered[-1] == [Message(role, "a<end_of_turn>b") for role in roles]
    assert not set(engine.calls[-1].prompt_token_ids[1:]) & engine.tokenizer.special_ids


def test_the_turn_is_opened_or_the_last_message_continued(asgi: Asgi, engine: FakeEngine) -> None:
    for fields, end in (
        ({}, "user: Hi\nmodel: "),
        ({"add_generation_prompt": False}, "user: Hi\n"),
        ({"continue_final_message": True}, "user: Hi"),
        ({"continue_final_message": False, "add_generation_prompt": True}, "user: Hi\nmodel: "),
    ):
        assert asgi.post(CHAT, chat_body(**fields)).status == 200
        assert engine.tokenizer.decode(engine.calls[-1].prompt_token_ids) == end


def test_truncation_keeps_the_end_and_bos(asgi: Asgi, engine: FakeEngine) -> None:
    def prompt(path: str, body: dict[str, Any]) -> str:
        assert asgi.post(path, body).status == 200
        return engine.tokenizer.decode(engine.calls[-1].prompt_token_ids, skip_special=False)

    assert prompt(CHAT, chat_body(truncate_prompt_tokens=4)) == "<bos>l: "
    assert prompt(TEXT, completion_body(prompt="abcdef", truncate_prompt_tokens=3)) == "<bos>ef"
    assert prompt(TEXT, completion_body(prompt="abcdef", truncate_prompt_tokens=1)) == "<bos>"
    assert prompt(TEXT, completion_body(prompt="abcdef", truncate_prompt_tokens=7)) == "<bos>abcdef"
    ids = engine.tokenizer.encode("abcdef")
    assert prompt(TEXT, completion_body(prompt=ids, truncate_prompt_tokens=3)) == "def"


@pytest.mark.parametrize("num_chars", [4095, 4096, 100_000])
def test_a_full_context_names_both_counts_in_the_words_clients_know(asgi: Asgi, num_chars: int) -> None:
    """Of text that is tokenised, and of more than could fit however it is."""
    for path, body, param in (
        (CHAT, chat_body(messages=[{"role": "user", "content": "x" * num_chars}]), "messages"),
        (TEXT, completion_body(prompt="x" * num_chars), "prompt"),
    ):
        answer = asgi.post(path, body)
        assert refusal(answer) == ("context_length_exceeded", param)
        words = "This model's maximum context length is 4096 tokens; the prompt is too long: it has "
        assert answer.error["message"].startswith(words)
        assert re.search(r"\d+ tokens", answer.error["message"].removeprefix(words))


def test_no_answer_to_a_wrong_request_says_what_was_in_it(asgi: Asgi) -> None:
    secret = "s3cr3t"
    for body in (
        chat_body(messages=[{"role": secret, "content": secret}]),
        chat_body(temperature=secret),
        chat_body(model=secret),
        chat_body(stop=[secret * 100]),
        completion_body(prompt={secret: secret}),
        completion_body(logit_bias={"5": secret}),
    ):
        answer = asgi.post(CHAT if "messages" in body else TEXT, body)
        assert answer.status in {400, 404}
        assert secret not in answer.error["message"]
    assert secret.encode() not in asgi.post(CHAT, f'{{"a": "{secret}'.encode()).body


def test_a_long_name_does_not_make_a_long_answer(asgi: Asgi) -> None:
    for name in ("x" * 1_000_000, "\U0001f642" * 100_000, '"' * 1000, "\x00" * 1000):
        answer = asgi.post(CHAT, chat_body(**{name: 1}))
        assert refusal(answer)[0] == "unknown_parameter"
        assert len(answer.body) <= 4096
    answer = asgi.post(CHAT, {f"name{i}": 1 for i in range(100_000)})
    assert refusal(answer) == ("invalid_value", None)
