"""vLLM's own request fields: what the engine is asked, and the shapes of the answers."""

import json
from typing import Any

import pytest

from openai_api.answer.models import ChatCompletion, Completion
from openai_api.request.field_support import MAX_ANSWER_VALUES, MAX_CHOICES
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import Answer, Asgi, chat_body, completion_body

CHAT, COMPLETIONS, TOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize"
BOS = 2


def ok(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.json
    return body


def refusal(answer: Answer) -> tuple[str, str]:
    assert answer.status == 400, answer.body
    error = answer.json["error"]
    return error["param"], error["message"]


def ids_of(engine: FakeEngine, text: str, **settings: bool) -> list[int]:
    return engine.tokenizer.encode(text, **settings)


def test_a_chat_s_prompt_has_its_log_probabilities_once(asgi: Asgi, engine: FakeEngine) -> None:
    body = ok(asgi.post(CHAT, chat_body(prompt_logprobs=2, n=3, max_tokens=2)))
    params, prompt = engine.calls[-1].params, engine.calls[-1].prompt_token_ids
    assert (params.prompt_logprobs, params.prompt_ranks, params.logprobs) == (2, True, None)
    first, *entries = body["prompt_logprobs"]
    assert first is None
    assert len(entries) == len(prompt) - 1
    for token_id, entry in zip(prompt[1:], entries, strict=True):
        text = engine.tokenizer.token_to_bytes(token_id).decode("utf-8", "replace")
        assert entry[str(token_id)] == {"logprob": -0.125 * (1 + token_id % 7), "rank": 1, "decoded_token": text}
        assert [each["rank"] for each in entry.values()] == [1, 2], "the alternatives' ranks are their places"
    assert all("prompt_logprobs" not in choice and choice["logprobs"] is None for choice in body["choices"])
    ChatCompletion.model_validate(body)


def test_a_token_that_is_no_alternative_keeps_its_own_rank(asgi: Asgi) -> None:
    """The scripted engine ranks every token of a prompt second."""
    body = ok(asgi.post(CHAT, chat_body(prompt_logprobs=0, max_tokens=2)))
    assert {next(iter(entry.values()))["rank"] for entry in body["prompt_logprobs"][1:]} == {2}


def test_each_choice_of_a_completion_has_its_prompt_s(asgi: Asgi, engine: FakeEngine) -> None:
    body = ok(asgi.post(COMPLETIONS, completion_body(prompt=["ab", "c"], n=2, prompt_logprobs=1, max_tokens=2)))
    lengths = [len(choice["prompt_logprobs"]) for choice in body["choices"]]
    assert lengths == [3, 3, 2, 2]
    assert all(choice["text"] and choice["logprobs"] is None for choice in body["choices"])
    c = ids_of(engine, "c")[0]
    assert list(body["choices"][2]["prompt_logprobs"][1]) == [str(c)]
    Completion.model_validate(body)


@pytest.mark.parametrize(("logprobs", "prompt_logprobs"), [(1, 3), (3, 1), (None, 2), (2, None), (0, 0)])
def test_an_echo_and_a_prompt_may_ask_for_different_numbers(
    asgi: Asgi, engine: FakeEngine, logprobs: int | None, prompt_logprobs: int | None
) -> None:
    fields = {"echo": True, "logprobs": logprobs, "prompt_logprobs": prompt_logprobs, "max_tokens": 0}
    (choice,) = ok(asgi.post(COMPLETIONS, completion_body(prompt="abc", **fields)))["choices"]
    assert engine.calls[-1].params.prompt_logprobs == max(n for n in (logprobs, prompt_logprobs) if n is not None)
    assert choice["text"] == "abc"
    if logprobs is None:
        assert choice["logprobs"] is None
    else:
        assert [entry and len(entry) for entry in choice["logprobs"]["top_logprobs"] or ()][1:] == [logprobs] * (
            3 if logprobs else 0
        )
    if prompt_logprobs is None:
        assert "prompt_logprobs" not in choice
    else:
        assert [len(entry) for entry in choice["prompt_logprobs"][1:]] == [max(1, prompt_logprobs)] * 3


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat_body()), (COMPLETIONS, completion_body())])
def test_a_stream_has_no_place_for_a_prompt_s(asgi: Asgi, engine: FakeEngine, path: str, body: dict[str, Any]) -> None:
    param, message = refusal(asgi.post(path, {**body, "prompt_logprobs": 1, "stream": True}))
    assert (param, "'stream'" in message) == ("prompt_logprobs", True)
    plain = asgi.post(path, {**body, "prompt_logprobs": 0, "stream": True})
    assert plain.status == 200
    assert engine.calls[-1].params.prompt_logprobs is None
    assert b"prompt_logprobs" not in plain.body


def test_allowed_token_ids_reach_the_engine(asgi: Asgi, engine: FakeEngine) -> None:
    for path, body in ((CHAT, chat_body()), (COMPLETIONS, completion_body())):
        ok(asgi.post(path, {**body, "allowed_token_ids": [9, 7, 9]}))
        assert engine.calls[-1].params.allowed_token_ids == (7, 9)
        for bad in ([], [engine.info.vocab_size], [-1], [1.5], "7", [True], [5] * 1_025):
            assert refusal(asgi.post(path, {**body, "allowed_token_ids": bad}))[0].startswith("allowed_token_ids"), bad


def test_chat_lists_the_chosen_token_and_the_ids_asked_for(asgi: Asgi, engine: FakeEngine) -> None:
    """As vLLM: in place of the likeliest, whatever ``top_logprobs`` says; each token once."""
    engine.script = Script(text="ab")
    a, b, z = (ids_of(engine, letter)[0] for letter in "abz")
    fields = {"logprobs": True, "top_logprobs": 5, "logprob_token_ids": [z, a, z], "max_tokens": 2}
    (choice,) = ok(asgi.post(CHAT, chat_body(**fields)))["choices"]
    tops = [[top["token"] for top in entry["top_logprobs"]] for entry in choice["logprobs"]["content"]]
    assert tops == [["z", "a"], ["b", "z", "a"]]
    assert engine.calls[-1].params.logprob_token_ids == (z, a)
    for entry in choice["logprobs"]["content"]:
        by_token = {top["token"]: top["logprob"] for top in entry["top_logprobs"]}
        assert by_token[entry["token"]] == entry["logprob"]
    (plain,) = ok(asgi.post(CHAT, chat_body(**{**fields, "logprob_token_ids": [], "top_logprobs": 1})))["choices"]
    assert [len(entry["top_logprobs"]) for entry in plain["logprobs"]["content"]] == [1, 1]
    assert b


def test_completions_list_them_beside_the_chosen_one(asgi: Asgi, engine: FakeEngine) -> None:
    """Also with ``logprobs: 0``, which has no alternatives otherwise; an echoed prompt keeps its likeliest."""
    engine.script = Script(text="ab")
    z = ids_of(engine, "z")[0]
    fields = {"logprobs": 0, "logprob_token_ids": [z], "max_tokens": 2}
    (choice,) = ok(asgi.post(COMPLETIONS, completion_body(**fields)))["choices"]
    assert [set(top) for top in choice["logprobs"]["top_logprobs"]] == [{"z", "a"}, {"z", "b"}]
    (echoed,) = ok(asgi.post(COMPLETIONS, completion_body(**fields, prompt="q", echo=True)))["choices"]
    assert [top and set(top) for top in echoed["logprobs"]["top_logprobs"]] == [None, {"q"}, {"z", "a"}, {"z", "b"}]


def test_ids_are_only_reported_where_log_probabilities_are(asgi: Asgi, engine: FakeEngine) -> None:
    for path, body in (
        (CHAT, chat_body(logprob_token_ids=[7])),
        (CHAT, chat_body(logprob_token_ids=[7] * 129, logprobs=True)),
        (CHAT, chat_body(logprob_token_ids=[engine.info.vocab_size], logprobs=True)),
        (COMPLETIONS, completion_body(logprob_token_ids=[7])),
        (COMPLETIONS, completion_body(logprob_token_ids=[7], logprobs=1, echo=True, max_tokens=0)),
    ):
        assert refusal(asgi.post(path, body))[0] == "logprob_token_ids", body
    assert not engine.calls


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_written_as_their_ids(asgi: Asgi, engine: FakeEngine, stream: bool) -> None:
    """Bytes and offsets stay those of the text."""
    engine.script = Script(text="a\u00e9")
    names = [f"token_id:{i}" for i in ids_of(engine, "a\u00e9")]
    fields = {"return_tokens_as_token_ids": True, "stream": stream}
    chat = asgi.post(CHAT, chat_body(**fields, logprobs=True, top_logprobs=1, max_tokens=3))
    content = [entry for each in parts(chat) for entry in (each["logprobs"] or {"content": ()})["content"]]
    assert [entry["token"] for entry in content] == names
    assert [entry["top_logprobs"][0]["token"] for entry in content] == names
    assert bytes(byte for entry in content for byte in entry["bytes"]) == "a\u00e9".encode()
    text = asgi.post(COMPLETIONS, completion_body(**fields, logprobs=1, max_tokens=3))
    logprobs = [each["logprobs"] for each in parts(text)]
    assert [token for each in logprobs for token in each["tokens"]] == names
    assert [list(top) for each in logprobs for top in each["top_logprobs"]] == [[name] for name in names]
    assert [offset for each in logprobs for offset in each["text_offset"]] == [0, 1, 1]


def parts(answer: Answer) -> list[dict[str, Any]]:
    """The one choice of a whole answer, or those of its chunks."""
    assert answer.status == 200, answer.body
    if not answer.body.startswith(b"data"):
        return list(answer.json["choices"])
    events = [line.removeprefix("data: ") for line in answer.body.decode().split("\n\n") if line]
    return [choice for event in events if event != "[DONE]" for choice in json.loads(event)["choices"]]


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_is_not_among_the_token_ids(asgi: Asgi, engine: FakeEngine, stream: bool) -> None:
    """vLLM owns the field: generated tokens alone, the prompt's have a list of their own."""
    engine.script = Script(text="xyz")
    body = completion_body(prompt=["ab", [5, 6]], n=2, echo=True, max_tokens=2, return_token_ids=True, stream=stream)
    by_choice: dict[int, list[dict[str, Any]]] = {}
    for part in parts(asgi.post(COMPLETIONS, body)):
        by_choice.setdefault(part["index"], []).append(part)
    prompts = [[BOS, *ids_of(engine, "ab")]] * 2 + [[5, 6]] * 2
    for choice, told in sorted(by_choice.items()):
        said = ids_of(engine, "xyz" if choice % 2 == 0 else "1. xyz")[:2]
        assert [token_id for part in told for token_id in part["token_ids"]] == said
        assert [part["prompt_token_ids"] for part in told if "prompt_token_ids" in part] == [prompts[choice]]
        assert "".join(part["text"] for part in told).startswith("ab" if choice < 2 else "<end_of_turn>")


def test_parse_special_is_asked_for(asgi: Asgi, engine: FakeEngine) -> None:
    """For harnesses that render a chat themselves; a ``<bos>`` of the text is the only one then."""
    text = "<start_of_turn>user\nHi"
    for fields, special in (({}, False), ({"parse_special": False}, False), ({"parse_special": True}, True)):
        ok(asgi.post(COMPLETIONS, completion_body(prompt=text, **fields)))
        assert list(engine.calls[-1].prompt_token_ids) == ids_of(engine, text, add_bos=True, parse_special=special)
    special = completion_body(prompt="<bos>" + text, parse_special=True, echo=True, logprobs=0, max_tokens=1)
    (choice,) = ok(asgi.post(COMPLETIONS, special))["choices"]
    expected = ids_of(engine, text, add_bos=True, parse_special=True)
    assert list(engine.calls[-1].prompt_token_ids) == expected
    assert choice["text"].startswith("<bos>" + text)
    assert choice["logprobs"]["text_offset"][:2] == [0, len("<bos>")], "this one is in the text"
    tokenized = ok(asgi.post(TOKENIZE, {"prompt": "<bos>" + text, "parse_special": True}))
    assert tokenized["tokens"] == expected


def test_a_cut_prompt_with_control_tokens_is_echoed_with_them(asgi: Asgi, engine: FakeEngine) -> None:
    body = completion_body(parse_special=True, echo=True, truncate_prompt_tokens=3, max_tokens=1)
    for text, echoed in (("xy<end_of_turn>z", "<end_of_turn>z"), ("<bos>xy<end_of_turn>z", "<bos><end_of_turn>z")):
        (choice,) = ok(asgi.post(COMPLETIONS, {**body, "prompt": text}))["choices"]
        assert choice["text"].startswith(echoed)
        assert len(engine.calls[-1].prompt_token_ids) == 3
        assert engine.calls[-1].prompt_token_ids[0] == BOS


def test_messages_are_never_read_for_control_tokens(asgi: Asgi) -> None:
    assert refusal(asgi.post(CHAT, chat_body(parse_special=True)))[0] == "parse_special"


def test_sixty_four_choices(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="x")
    body = ok(asgi.post(CHAT, chat_body(n=64, max_tokens=3)))
    assert [choice["index"] for choice in body["choices"]] == list(range(64))
    many = completion_body(prompt=["a"] * 16, n=64, max_tokens=1)
    assert len(ok(asgi.post(COMPLETIONS, many))["choices"]) == MAX_CHOICES
    assert refusal(asgi.post(COMPLETIONS, {**many, "prompt": ["a"] * 17}))[0] == "n"


def test_what_an_answer_says_is_bounded(asgi: Asgi, engine: FakeEngine) -> None:
    """By what might come; what was allowed with 8 choices and 20 alternatives stays so."""
    longest = engine.info.max_model_len
    ok(asgi.post(CHAT, chat_body(logprobs=True, top_logprobs=20, n=8)))
    many = chat_body(logprobs=True, logprob_token_ids=list(range(128)), n=64)
    assert 64 * longest * 129 > MAX_ANSWER_VALUES
    param, message = refusal(asgi.post(CHAT, many))
    assert (param, str(MAX_ANSWER_VALUES) in message) == ("n", True)
    ok(asgi.post(CHAT, {**many, "max_tokens": 1}))
    prompt = completion_body(prompt=[7] * 4_000, max_tokens=1, echo=True, logprobs=20, prompt_logprobs=20)
    assert refusal(asgi.post(COMPLETIONS, {**prompt, "n": 64}))[0] == "n"
    assert engine.calls[-1].params.n == 64, "nothing was asked of the engine"
    assert len(engine.calls) == 2
