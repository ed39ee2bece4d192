"""Large answers: the same bytes as small ones have, written piece by piece and off the event loop."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from engine.outputs import TokenLogprob
from engine.sampling_params import SamplingParams
from openai_api.answer import json_pieces as module
from openai_api.answer.chat_writer import ChatWriter
from openai_api.answer.chunks import Chunk, num_values
from openai_api.answer.completion_writer import CompletionWriter
from openai_api.answer.generation import Job, Usage
from openai_api.answer.json_pieces import json_pieces, json_text, large_json_response
from openai_api.answer.models import Answer, LegacyLogprobs, json_response
from openai_api.answer.server_models import DetokenizeAnswer, TokenizeAnswer
from openai_api.answer.writer import Head
from openai_api.request.schemas import ChatCompletionRequest, CompletionRequest
from openai_api.routing import routes
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import Asgi, chat_body, chunks_of, completion_body

HEAD = Head("id-1", 1, "gemma", "fp")
USAGE = Usage(prompt_tokens=3)
TOKENIZER = FakeEngine().tokenizer


def chunk(choice: int, num_tokens: int, num_top: int) -> Chunk:
    token_ids = tuple((7 * i + choice) % 250 + 6 for i in range(num_tokens))
    entries = (TokenLogprob(i, -1e-7 * i, tuple((i + n, -n - 0.1) for n in range(num_top))) for i in token_ids)
    logprobs: list[TokenLogprob | None] = list(entries)
    return Chunk(choice, '"\n\u4e00' * num_tokens, token_ids, tuple(logprobs))


def answers() -> dict[str, Answer]:
    chunks = [chunk(i, num_tokens=300 * i + 1, num_top=3) for i in range(3)]
    job = Job(request_id="1", prompts=((2, 9),), params=SamplingParams(n=3))
    chat = ChatCompletionRequest.model_validate(chat_body(logprobs=True, return_token_ids=True))
    text = CompletionRequest.model_validate(completion_body(logprobs=3, return_token_ids=True))
    plain = ChatCompletionRequest.model_validate(chat_body())
    return {
        "chat": ChatWriter(chat, job, HEAD, TOKENIZER).whole(chunks, USAGE),
        "chat without": ChatWriter(plain, job, HEAD, TOKENIZER).whole([Chunk(0, "", ())], USAGE),
        "completion": CompletionWriter(text, job, HEAD, TOKENIZER).whole(chunks, USAGE),
        "tokenize": TokenizeAnswer(count=3, max_model_len=9, tokens=list(range(1000)), token_strs=None),
        "strings": TokenizeAnswer(count=3, max_model_len=9, tokens=[], token_strs=['\u4e00\x00\x7f"\\\n'] * 300),
        "text": DetokenizeAnswer(prompt='\U0001f642\x1f"\u2028a' * 30_000),
        "infinite": LegacyLogprobs(tokens=[], token_logprobs=[float("-inf"), None], top_logprobs=None, text_offset=[]),
    }


ANSWERS = answers()


@pytest.mark.parametrize("kind", ANSWERS)
def test_pieces_are_the_bytes_of_the_whole(kind: str) -> None:
    answer = ANSWERS[kind]
    assert b"".join(json_pieces(answer)) == answer.model_dump_json(exclude_unset=True).encode()


def test_no_piece_is_large() -> None:
    """Nothing else runs while one is written."""
    for answer in ANSWERS.values():
        assert max(map(len, json_pieces(answer))) < 300_000
    assert len(list(json_pieces(ANSWERS["tokenize"]))) > 8
    assert len(list(json_pieces(ANSWERS["completion"]))) > 30


def test_a_stream_has_the_same_log_probabilities() -> None:
    for choice in ANSWERS["completion"].choices:  # type: ignore[attr-defined]
        assert json_text(choice.logprobs) == choice.logprobs.model_dump_json()


def sent(answer: Answer, small_size: int) -> list[Any]:
    messages: list[Any] = []

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(large_json_response(answer, size=100, small_size=small_size)({"type": "http"}, receive, send))
    return messages


def test_a_large_answer_is_sent_in_blocks_with_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 2_000)
    start, *bodies = sent(ANSWERS["chat"], small_size=99)
    whole_start, whole = sent(ANSWERS["chat"], small_size=100)
    assert sorted(start["headers"]) == sorted(whole_start["headers"])
    assert b"".join(message["body"] for message in bodies) == whole["body"] == json_response(ANSWERS["chat"]).body
    assert len(bodies) > 5
    assert [message["more_body"] for message in bodies] == [True] * (len(bodies) - 1) + [False]


def test_how_much_there_is_to_write() -> None:
    prompt = chunk(0, 10, 4).logprobs
    assert num_values([Chunk(0, "", (5,), prompt_logprobs=prompt)]) == 1 + 10 * (1 + 4)
    assert num_values([chunk(0, 10, 4), Chunk(1, "", (1, 2)), Chunk(2, "", (1,), (None,))]) == 10 + 50 + 2 + 1


class ThreadNotes:
    """How many tokens were written in heavy threads, and how many elsewhere (by the scripted engine, too)."""

    def __init__(self, engine: FakeEngine) -> None:
        self.num_tokens = Counter[bool]()
        as_bytes = engine.tokenizer.token_to_bytes

        def noted(token_id: int) -> bytes:
            self.num_tokens[threading.current_thread().name.startswith("heavy")] += 1
            return as_bytes(token_id)

        engine.tokenizer.token_to_bytes = noted  # type: ignore[method-assign]


@pytest.fixture
def asgi(engine: FakeEngine) -> Asgi:
    return Asgi(engine, ServerSettings(off_loop_bytes=1_000, heavy_bytes=2_000))


LARGE: Sequence[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", completion_body(prompt=[7] * 2_500, echo=True, logprobs=2)),
    ("/v1/completions", completion_body(prompt=[7] * 2_500, echo=True, logprobs=2, stream=True)),
    ("/v1/completions", completion_body(prompt=[7] * 2_500, prompt_logprobs=2)),
    ("/v1/chat/completions", chat_body(logprobs=True, top_logprobs=20, max_tokens=200, ignore_eos=True)),
    ("/detokenize", {"tokens": [9] * 3_000}),
]


@pytest.mark.parametrize(("path", "body"), LARGE)
def test_a_large_answer_is_written_off_the_loop(
    asgi: Asgi, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    notes = ThreadNotes(engine)
    engine.script = Script(text="Hello")
    assert asgi.post(path, body).status == 200
    assert notes.num_tokens[True] >= 900
    assert notes.num_tokens[False] <= 200


@pytest.mark.parametrize(("path", "body"), LARGE)
def test_a_large_answer_says_the_same(engine: FakeEngine, asgi: Asgi, path: str, body: dict[str, Any]) -> None:
    ordinary = Asgi(engine, ServerSettings(off_loop_bytes=10**9))
    found, expected = asgi.post(path, body), ordinary.post(path, body)
    if body.get("stream"):
        assert [without_id(each) for each in chunks_of(found.body)] == [
            without_id(each) for each in chunks_of(expected.body)
        ]
    else:
        assert without_id(found.json) == without_id(expected.json)
        assert found.headers["content-length"] == str(len(found.body))


def test_equal_tokens_are_written_once(asgi: Asgi, engine: FakeEngine) -> None:
    """2 million different strings take 150 MB."""
    notes = ThreadNotes(engine)
    answer = asgi.post("/tokenize", {"prompt": "abc\u4e00" * 1_000, "return_token_strs": True}).json
    strs = ["a", "b", "c", "bytes:\\xe4", "bytes:\\xb8", "bytes:\\x80"] * 1_000
    assert answer["token_strs"] == ["<bos>", *strs]
    assert notes.num_tokens == {True: 7}


def without_id(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in {"id", "created"}}


def test_the_openapi_document_is_made_once(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    """45 ms each time, and not on the event loop."""
    made: list[str] = []
    make = routes.openapi_document

    def counted(app: Any) -> dict[str, Any]:
        made.append(threading.current_thread().name)
        return make(app)

    monkeypatch.setattr(routes, "openapi_document", counted)
    asgi = Asgi(engine, ServerSettings())
    first, second = asgi.get("/openapi.json"), asgi.get("/openapi.json")
    assert first.status == 200
    assert first.headers["content-type"] == "application/json"
    assert first.body == second.body
    assert json.loads(first.body) == make(asgi.app)
    assert len(made) == 1
    assert made != [threading.current_thread().name]


def test_the_capabilities_are_the_same_each_time(asgi: Asgi) -> None:
    first, second = asgi.get("/v1/capabilities"), asgi.get("/v1/capabilities")
    assert first.body == second.body
    assert first.headers["content-type"] == second.headers["content-type"] == "application/json"
