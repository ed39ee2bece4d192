"""The answers themselves: their shape, whole and streamed, and that both are the same text byte for byte."""

import json
from collections import defaultdict
from typing import Any

import pytest

from openai_api.answer.models import ChatCompletion, ChatCompletionChunk, Completion
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import Asgi, chat_body, chunks_of, completion_body, events_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USAGE = {
    "prompt_tokens": 17,
    "completion_tokens": 29,
    "total_tokens": 46,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
}


def stream(asgi: Asgi, path: str, body: dict[str, Any]) -> list[Any]:
    answer = asgi.post(path, {**body, "stream": True})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    model = ChatCompletionChunk if path == CHAT else Completion
    for event in events_of(answer.body)[:-1]:
        model.model_validate_json(event)
    return chunks_of(answer.body)


def joined(chunks: list[Any]) -> dict[int, str]:
    texts: dict[int, str] = defaultdict(str)
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "") if "delta" in choice else choice["text"]
    return dict(texts)


def test_a_chat_answer(asgi: Asgi) -> None:
    answer = asgi.post(CHAT, chat_body())
    ChatCompletion.model_validate_json(answer.body)
    body = answer.json
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": MODEL_ID,
        "system_fingerprint": "fp_fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_a_chat_stream(asgi: Asgi) -> None:
    """First the role, then the text, one chunk for each output of the engine, then an empty delta with the reason."""
    chunks = stream(asgi, CHAT, chat_body())
    assert {(c["id"], c["created"], c["model"], c["system_fingerprint"], c["object"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], MODEL_ID, "fp_fake", "chat.completion.chunk")
    }
    first, *middle, last = [chunk["choices"][0] for chunk in chunks]
    assert first == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    assert last == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all(set(choice["delta"]) == {"content"} and choice["finish_reason"] is None for choice in middle)
    assert len(middle) == 28  # one a token; the end token has no text
    assert not any("usage" in chunk for chunk in chunks)


def test_include_usage(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(num_cached_tokens=5)
    for path, body in ((CHAT, chat_body()), (COMPLETIONS, completion_body())):
        *chunks, last = stream(asgi, path, {**body, "stream_options": {"include_usage": True}})
        assert all(chunk["usage"] is None for chunk in chunks)
        assert last["choices"] == []
        assert last["usage"] == asgi.post(path, body).json["usage"]
        assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
        for options in ({"include_usage": False}, {"continuous_usage_stats": True}, {}):
            chunks = stream(asgi, path, {**body, "stream_options": options})
            assert not any("usage" in chunk for chunk in chunks)


def test_predicted_tokens_are_counted_over_all_choices(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(tokens_per_output=6, num_accepted_predictions=5, num_rejected_predictions=2)
    body = chat_body(n=2, prediction={"type": "content", "content": TEXT})
    expected = {"accepted_prediction_tokens": 10, "rejected_prediction_tokens": 4}
    assert asgi.post(CHAT, body).json["usage"]["completion_tokens_details"] == expected
    *_, last = stream(asgi, CHAT, {**body, "stream_options": {"include_usage": True}})
    assert last["usage"]["completion_tokens_details"] == expected


def test_continuous_usage_stats(asgi: Asgi) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    for path, body in ((CHAT, chat_body(n=2)), (COMPLETIONS, completion_body(n=2))):
        *chunks, last = stream(asgi, path, {**body, "stream_options": options})
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == sorted(counts)
        assert counts[-1] == last["usage"]["completion_tokens"]
        assert len(set(counts)) > 10
        assert last["choices"] == []


TEXTS = [
    "",
    "x",
    TEXT,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0639\u0631\u0628\u064a",
    'q"\\/\b\f\n\r\t\x00\x7f\u2028\u2029\ufeff',
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"stop": ["end", "!"]}, {"max_tokens": 8}, {"logprobs": True}])
def test_a_stream_joined_is_the_answer(asgi: Asgi, engine: FakeEngine, text: str, fields: dict[str, Any]) -> None:
    for tokens_per_output in (1, 3, 1000):
        engine.script = Script(text=text, tokens_per_output=tokens_per_output)
        choices = asgi.post(CHAT, chat_body(**fields)).json["choices"]
        chunks = stream(asgi, CHAT, chat_body(**fields))
        assert joined(chunks) == {choice["index"]: choice["message"]["content"] for choice in choices}
        reasons = {c["index"]: c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]}
        assert reasons == {choice["index"]: choice["finish_reason"] for choice in choices}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "fields", [{}, {"n": 2}, {"echo": True, "n": 2}, {"stop": "e"}, {"max_tokens": 0}, {"max_tokens": 0, "echo": True}]
)
def test_a_completion_stream_joined_is_the_answer(
    asgi: Asgi, engine: FakeEngine, text: str, fields: dict[str, Any]
) -> None:
    engine.script = Script(text=text)
    for extra in ({}, {"logprobs": 2}, {"prompt": [[70, 71], [72]], "logprobs": 0, "return_token_ids": True}):
        body = completion_body(**fields, **extra)
        choices = asgi.post(COMPLETIONS, body).json["choices"]
        chunks = stream(asgi, COMPLETIONS, body)
        assert joined(chunks) == {choice["index"]: choice["text"] for choice in choices}
        assert logprobs_joined(chunks) == {c["index"]: c["logprobs"] for c in choices if c["logprobs"]}


def logprobs_joined(chunks: list[Any]) -> dict[int, Any]:
    whole: dict[int, Any] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        if choice["logprobs"] is None:
            continue
        sofar = whole.setdefault(choice["index"], dict.fromkeys(choice["logprobs"]))
        for name, values in choice["logprobs"].items():
            sofar[name] = values if values is None else (sofar[name] or []) + values
    return whole


def test_a_stop_string_is_never_sent(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="one two STOP three")
    for path, body in ((CHAT, chat_body(stop="STOP")), (COMPLETIONS, completion_body(stop=["zzz", "STOP"]))):
        assert joined(stream(asgi, path, body)) == {0: "one two "}


def test_n_gives_every_choice_a_role_and_an_end(asgi: Asgi) -> None:
    chunks = stream(asgi, CHAT, chat_body(n=3))
    by_choice: dict[int, list[Any]] = defaultdict(list)
    for chunk in chunks:
        (choice,) = chunk["choices"]
        by_choice[choice["index"]].append(choice)
    assert sorted(by_choice) == [0, 1, 2]
    for choices in by_choice.values():
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
        assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "stop")


def test_finish_reasons(asgi: Asgi) -> None:
    for fields, reason in (({}, "stop"), ({"max_tokens": 4}, "length"), ({"stop": "w"}, "stop")):
        assert asgi.post(CHAT, chat_body(**fields)).json["choices"][0]["finish_reason"] == reason


def test_chat_logprobs(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="a\u00e9")
    content = asgi.post(CHAT, chat_body(logprobs=True, top_logprobs=2)).json["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[0x61], [0xC3], [0xA9], list(b"<eos>")]
    assert [entry["token"] for entry in content] == ["a", "\ufffd", "\ufffd", "<eos>"]
    assert bytes(byte for entry in content[:3] for byte in entry["bytes"]).decode() == "a\u00e9"
    assert content[0] == {
        "token": "a",
        "logprob": content[0]["logprob"],
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": content[0]["logprob"], "bytes": [97]},
            {"token": "b", "logprob": content[0]["logprob"] - 1, "bytes": [98]},
        ],
    }
    whole = asgi.post(CHAT, chat_body(logprobs=True)).json["choices"][0]["logprobs"]
    assert all(entry["top_logprobs"] == [] for entry in whole["content"])
    pieces = [c["logprobs"] for chunk in stream(asgi, CHAT, chat_body(logprobs=True)) for c in chunk["choices"]]
    assert [entry for piece in pieces if piece for entry in piece["content"]] == whole["content"]
    assert asgi.post(CHAT, chat_body(logprobs=False)).json["choices"][0]["logprobs"] is None


def test_legacy_logprobs(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="a\u00e9b")
    choice = asgi.post(COMPLETIONS, completion_body(logprobs=1)).json["choices"][0]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["a", "bytes:\\xc3", "bytes:\\xa9", "b", "<eos>"]
    assert logprobs["text_offset"] == [0, 1, 1, 2, 3]
    assert all(set(top) == {token} for top, token in zip(logprobs["top_logprobs"], logprobs["tokens"], strict=True))
    none = asgi.post(COMPLETIONS, completion_body(logprobs=0)).json["choices"][0]["logprobs"]
    assert none["top_logprobs"] is None
    assert none["token_logprobs"] == logprobs["token_logprobs"]
    assert asgi.post(COMPLETIONS, completion_body()).json["choices"][0]["logprobs"] is None


def test_echo_with_the_prompts_own_logprobs(asgi: Asgi, engine: FakeEngine) -> None:
    """The request that evaluation harnesses send: token ids, no new tokens."""
    ids = engine.tokenizer.encode("a\u00e9b", add_bos=True)
    body = completion_body(prompt=ids, echo=True, logprobs=1, max_tokens=0)
    answer = asgi.post(COMPLETIONS, body).json
    (choice,) = answer["choices"]
    assert choice["text"] == "<bos>a\u00e9b"
    assert choice["finish_reason"] == "length"
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == len(ids)
    assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
    assert all(value < 0 for value in logprobs["token_logprobs"][1:])
    assert logprobs["text_offset"] == [0, 5, 6, 6, 7]
    assert answer["usage"]["completion_tokens"] == 0


def test_echo_of_a_text_does_not_show_the_bos_we_added(asgi: Asgi) -> None:
    choice = asgi.post(COMPLETIONS, completion_body(prompt="ab", echo=True, logprobs=0, max_tokens=2)).json["choices"][
        0
    ]
    assert choice["text"] == "abHe"
    assert choice["logprobs"]["tokens"] == ["<bos>", "a", "b", "H", "e"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 2, 3]
    choice = asgi.post(
        COMPLETIONS, completion_body(prompt="abcd", echo=True, max_tokens=2, truncate_prompt_tokens=3)
    ).json["choices"][0]
    assert choice["text"] == "cdHe"


def test_many_prompts(asgi: Asgi, engine: FakeEngine) -> None:
    """Choices of all prompts count through; the prompts run at once, not one after the other."""
    engine.scripts = {"first": Script(text="1st", token_s=0.02), "second": Script(text="2nd", token_s=0.02)}
    body = completion_body(prompt=["first", "second"], n=2, echo=True)
    choices = asgi.post(COMPLETIONS, body).json["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"] for choice in choices] == ["first1st", "first1. 1st", "second2nd", "second1. 2nd"]
    chunks = stream(asgi, COMPLETIONS, body)
    assert joined(chunks) == {choice["index"]: choice["text"] for choice in choices}
    order = [choice["index"] // 2 for chunk in chunks for choice in chunk["choices"]]
    assert order != sorted(order)
    assert len({call.request_id for call in engine.calls[:2]}) == 2
    usage = asgi.post(COMPLETIONS, body).json["usage"]
    assert usage["prompt_tokens"] == 6 + 7


def test_return_token_ids(asgi: Asgi, engine: FakeEngine) -> None:
    body = chat_body(return_token_ids=True, max_tokens=3)
    answer = asgi.post(CHAT, body).json
    assert answer["prompt_token_ids"] == list(engine.calls[-1].prompt_token_ids)
    assert answer["choices"][0]["token_ids"] == engine.tokenizer.encode("Hel")
    chunks = stream(asgi, CHAT, body)
    assert chunks[0]["prompt_token_ids"] == answer["prompt_token_ids"]
    assert not any("prompt_token_ids" in chunk for chunk in chunks[1:])
    ids = [i for chunk in chunks for choice in chunk["choices"] for i in choice.get("token_ids", [])]
    assert ids == answer["choices"][0]["token_ids"]
    body = completion_body(return_token_ids=True, max_tokens=3, prompt="ab")
    (choice,) = asgi.post(COMPLETIONS, body).json["choices"]
    assert choice["prompt_token_ids"] == engine.tokenizer.encode("ab", add_bos=True)
    assert choice["token_ids"] == engine.tokenizer.encode("Hel")
    pieces = [choice for chunk in stream(asgi, COMPLETIONS, body) for choice in chunk["choices"]]
    assert pieces[0]["prompt_token_ids"] == choice["prompt_token_ids"]
    assert [i for piece in pieces for i in piece["token_ids"]] == choice["token_ids"]


@pytest.mark.parametrize("logprobs", [False, True])
def test_return_forced(asgi: Asgi, engine: FakeEngine, logprobs: bool) -> None:
    """One flag for each token of the answer, in a stream and in whole; without the field the bytes of before."""
    engine.script = Script(text="abcd", forced=bytes([1, 0, 0, 1, 0]), tokens_per_output=2)
    flags = [True, False, False, True, False]
    for path, body in (
        (CHAT, chat_body(logprobs=logprobs)),
        (COMPLETIONS, completion_body(logprobs=1 if logprobs else None)),
        (COMPLETIONS, completion_body(prompt=[5, 6], echo=True)),
    ):
        assert "forced" not in asgi.post(path, body).json["choices"][0]
        (choice,) = asgi.post(path, body | {"return_forced": True}).json["choices"]
        assert choice["forced"] == flags
        chunks = stream(asgi, path, body | {"return_forced": True, "return_token_ids": True})
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert [flag for each in choices for flag in each.get("forced", [])] == flags
        assert all(len(each.get("forced", [])) == len(each.get("token_ids", [])) for each in choices)
    engine.script = Script(text="ab")
    assert asgi.post(CHAT, chat_body(return_forced=True)).json["choices"][0]["forced"] == [False] * 3


def test_tokenize(asgi: Asgi, engine: FakeEngine) -> None:
    def tokens(**body: Any) -> list[int]:
        answer = asgi.post("/tokenize", body)
        assert answer.status == 200, answer.body
        assert answer.json["count"] == len(answer.json["tokens"])
        assert answer.json["max_model_len"] == 4096
        return list(answer.json["tokens"])

    encode = engine.tokenizer.encode
    assert tokens(prompt="a<eos>") == encode("a<eos>", add_bos=True)
    assert tokens(prompt="a<eos>", add_special_tokens=False) == encode("a<eos>")
    assert tokens(prompt="a<eos>", parse_special=True) == [2, *encode("a"), 1]
    assert tokens(prompt="") == [2]
    assert tokens(messages=[{"role": "user", "content": "Hi"}]) == encode("user: Hi\nmodel: ", add_bos=True)
    assert tokens(messages=[{"role": "user", "content": "Hi"}], continue_final_message=True, model=MODEL_ID) == encode(
        "user: Hi", add_bos=True
    )
    answer = asgi.post("/tokenize", {"prompt": "h\u00f6", "return_token_strs": True}).json
    assert answer["token_strs"] == ["<bos>", "h", "bytes:\\xc3", "bytes:\\xb6"]
    assert asgi.post("/tokenize", {"prompt": "x"}).json["token_strs"] is None
    large = "word " * 20_000
    assert len(tokens(prompt=large)) == 100_001


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}], "parse_special": True}, "parse_special"),
        ({"prompt": "x", "continue_final_message": True}, "add_generation_prompt"),
        ({"prompt": "x", "add_generation_prompt": True}, "add_generation_prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x", "return_token_strs": 1}, "return_token_strs"),
        ({"prompt": "x", "y": 1}, "y"),
    ],
)
def test_tokenize_refusals(asgi: Asgi, body: dict[str, Any], param: str) -> None:
    answer = asgi.post("/tokenize", body)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_detokenize_is_the_inverse(asgi: Asgi) -> None:
    text = "<bos>a\u00e9\U0001f642 <start_of_turn>"
    body = {"prompt": text, "add_special_tokens": False, "parse_special": True}
    tokens = asgi.post("/tokenize", body).json["tokens"]
    assert asgi.post("/detokenize", {"tokens": tokens}).json == {"prompt": text}
    assert asgi.post("/detokenize", {"tokens": []}).json == {"prompt": ""}
    assert asgi.post("/detokenize", {"tokens": [float(token) for token in tokens]}).json == {"prompt": text}
    for wrong in ([262], [-1], ["1"], [True], 5, None, [1.5]):
        answer = asgi.post("/detokenize", {"tokens": wrong})
        assert (answer.status, answer.error["code"]) == (400, "invalid_value")
    assert asgi.post("/detokenize", {}).error["code"] == "missing_required_parameter"


def test_another_model_is_not_found(asgi: Asgi) -> None:
    for path, body in (
        (CHAT, chat_body()),
        (COMPLETIONS, completion_body()),
        ("/tokenize", {"prompt": "x"}),
        ("/detokenize", {"tokens": []}),
    ):
        answer = asgi.post(path, {**body, "model": "gpt-4"})
        assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


def test_models(asgi: Asgi, engine: FakeEngine) -> None:
    model = {
        "id": MODEL_ID,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "google",
        "max_model_len": 4096,
        "quantization": "none",
        "dtype": "float32",
        "is_instruction_tuned": True,
    }
    assert asgi.get("/v1/models").json == {"object": "list", "data": [model]}
    assert asgi.get(f"/v1/models/{MODEL_ID}").json == model
    for name in ("x", "google/gemma", "..", "%2e"):
        assert asgi.get(f"/v1/models/{name}").error["code"] == "model_not_found"
    engine.info = type(engine.info)(
        **{**{s: getattr(engine.info, s) for s in engine.info.__slots__}, "model_id": "a/b"}
    )
    assert asgi.get("/v1/models/a/b").json["id"] == "a/b"


def test_events_are_cheap_json(asgi: Asgi) -> None:
    """No spaces and no pydantic in what every token costs."""
    event = events_of(asgi.post(CHAT, chat_body(stream=True)).body)[1]
    assert event == json.dumps(json.loads(event), separators=(",", ":"))
