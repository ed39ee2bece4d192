"""Large requests: what is refused before any work is done for it, what is done elsewhere than on the event loop, and how many
bytes of bodies the server holds at once.
"""

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from engine.caller import Caller
from openai_api.app import create_app
from openai_api.app_state import AppState
from openai_api.body_budget import BodyBudget
from openai_api.off_loop import OffLoop
from openai_api.request.prompts import check_text_length
from openai_api.request.schemas import ChatCompletionRequest
from openai_api.run import ServerProcess
from openai_api.settings import ServerSettings
from openai_api.sockets import Listeners
from tests.openai_api import harness
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import Asgi, LiveServer, chat_body, completion_body, live_server, wait_until

ALICE, BOB = Caller(name="alice"), Caller(name="bob")
# The longest piece of the stand-in vocabulary is <start_of_turn>.
MAX_CHARS = 4096 * 15


class CountingEngine(FakeEngine):
    """Notes the length of every text that is tokenised."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tokenised: list[int] = []
        encode = self.tokenizer.encode

        def counted(text: str, **flags: bool) -> list[int]:
            self.tokenised.append(len(text))
            return encode(text, **flags)

        self.tokenizer.encode = counted  # type: ignore[method-assign]


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


HOPELESS = {
    "/v1/completions": [
        completion_body(prompt="a" * (MAX_CHARS + 1)),
        completion_body(prompt=["Hi", "\u4e00" * (MAX_CHARS + 1)], stream=True),
    ],
    "/v1/chat/completions": [
        chat_body(messages=message(" a" * MAX_CHARS)),
        chat_body(messages=message("a" * 4000) * 20),
        chat_body(messages=[{"role": "user", "content": [{"type": "text", "text": "abc" * 5000}] * 9}], stream=True),
    ],
}


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in HOPELESS.items() for body in bodies])
def test_a_text_that_cannot_fit_is_not_tokenised(asgi: Asgi, engine: CountingEngine, path: str, body: Any) -> None:
    answer = asgi.post(path, body)
    param = "prompt" if path == "/v1/completions" else "messages"
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "context_length_exceeded", param)
    assert "length is 4096 tokens" in answer.error["message"]
    assert int(answer.error["message"].partition("it has at least ")[2].split()[0]) > 4096
    assert engine.tokenised == engine.calls == []


def test_white_space_around_messages_is_no_part_of_the_prompt(asgi: Asgi, engine: CountingEngine) -> None:
    asgi.post("/v1/chat/completions", chat_body(messages=message(" " * 2 * MAX_CHARS + "Hi")))
    assert engine.rendered


def test_a_text_that_may_fit_is_tokenised(asgi: Asgi, engine: CountingEngine) -> None:
    for body in (completion_body(prompt="a" * MAX_CHARS), completion_body(prompt="<start_of_turn>" * 4096)):
        assert asgi.post("/v1/completions", body).error["code"] == "context_length_exceeded"
    assert engine.tokenised == [MAX_CHARS, MAX_CHARS]


def test_no_prompt_is_tokenised_behind_one_that_is_too_long(asgi: Asgi, engine: CountingEngine) -> None:
    prompts = ["Hi", "a" * 5000, *["Hello"] * 100]
    assert asgi.post("/v1/completions", completion_body(prompt=prompts)).error["code"] == "context_length_exceeded"
    assert engine.tokenised == [2, 5000]
    assert len(engine.calls) == 1


def small_texts(engine: FakeEngine) -> Asgi:
    return Asgi(engine, ServerSettings(max_text_chars=100_000))


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", completion_body(truncate_prompt_tokens=5, prompt="TEXT"), "prompt"),
        ("/v1/chat/completions", chat_body(truncate_prompt_tokens=5, messages=message("TEXT")), "messages"),
        ("/tokenize", {"prompt": "TEXT"}, "prompt"),
        ("/tokenize", {"messages": message("TEXT")}, "messages"),
    ],
)
def test_a_text_that_need_not_fit_may_be_longer(engine: CountingEngine, path: str, body: Any, param: str) -> None:
    asgi = small_texts(engine)
    fits, too_long = (json.dumps(body).replace("TEXT", "a" * num).encode() for num in (100_000, 100_001))
    assert asgi.post(path, fits).status == 200
    num_tokenised = len(engine.tokenised)
    answer = asgi.post(path, too_long)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_value", param)
    assert "at most 100000 characters" in answer.error["message"]
    assert len(engine.tokenised) == num_tokenised


def test_a_prediction_is_cut(engine: CountingEngine) -> None:
    body = chat_body(prediction={"type": "content", "content": "a" * 200_000})
    assert small_texts(engine).post("/v1/chat/completions", body).status == 200
    assert max(engine.tokenised) == 100_000
    assert len(engine.calls[0].prediction_token_ids) == engine.info.max_model_len


def test_the_least_number_of_tokens_is_asked_for_only_if_a_text_is_long(asgi: Asgi, engine: CountingEngine) -> None:
    asked: list[int] = []

    def counted(text: str) -> int:
        asked.append(len(text))
        return 0

    engine.tokenizer.min_num_tokens = counted  # type: ignore[method-assign]
    app_state: AppState = asgi.app.state.app_state
    for num_chars in (4096, 4097):
        check_text_length(app_state, "a" * num_chars, param="prompt", must_fit=True)
    assert asked == [4097]


# The budget of bodies.


def budget() -> BodyBudget:
    return BodyBudget(ServerSettings(heavy_bytes=10, max_bytes_of_bodies=100))


def test_small_bodies_are_free() -> None:
    bodies = budget()
    with bodies.share(ALICE) as alice, bodies.share(BOB) as bob:
        alice.take(50)
        for _ in range(10):
            bob.take(1)
        assert not bob.is_large
        assert bodies.held_bytes == 50


def test_one_caller_has_at_most_half() -> None:
    bodies = budget()
    with bodies.share(ALICE) as first, bodies.share(ALICE) as second, bodies.share(BOB) as bob:
        assert first.take(39)
        assert second.take(11)
        assert bodies.held_bytes == 50
        assert not second.take(1)
        assert bodies.held_bytes == 39
        assert bob.take(50)
        assert bodies.held_bytes == 89


def test_all_callers_have_no_more_than_all() -> None:
    bodies = budget()
    with bodies.share(ALICE) as alice, bodies.share(BOB) as bob, bodies.share(Caller(name="carol")) as carol:
        alice.take(50)
        bob.take(45)
        assert not carol.take(11)
        assert bodies.held_bytes == 95


def test_bytes_are_given_back_whatever_happens() -> None:
    bodies = budget()

    def fail_with_some() -> None:
        with bodies.share(ALICE) as share:
            share.take(11)
            share.take(20)
            assert bodies.held_bytes == 31
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_with_some()
    assert bodies.held_bytes == 0
    assert not bodies._held_bytes  # no name is kept


@pytest.fixture
def tight() -> Iterator[LiveServer]:
    settings = ServerSettings(heavy_bytes=50_000, max_bytes_of_bodies=1_000_000, body_timeout_s=2.0)
    with live_server(FakeEngine(), settings) as server:
        yield server


def begin_body(server: LiveServer, num_bytes: int) -> socket.socket:
    """A body that lacks its last byte."""
    connection = socket.create_connection((server.host, server.port), timeout=5)
    head = f"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {num_bytes}\r\n\r\n"
    connection.sendall(head.encode() + b"[" * (num_bytes - 1))
    return connection


def test_bodies_on_the_way_take_no_more_than_allowed(tight: LiveServer) -> None:
    """What there is no room for is read to its end and forgotten, and then refused."""
    held = [begin_body(tight, 160_000) for _ in range(3)]
    wait_until(lambda: status_of(tight, 160_000) == b"503")
    with begin_body(tight, 160_000) as refused:
        refused.settimeout(0.1)
        with pytest.raises(TimeoutError):
            refused.recv(1)
        refused.settimeout(5)
        refused.sendall(b"[")
        answer = b""
        while b'"code": "busy"' not in answer:
            answer += refused.recv(65536)
    assert b"retry-after: 1\r\n" in answer.lower()
    assert status_of(tight, 50_000) == b"400"
    for connection in held:
        connection.close()
    wait_until(lambda: status_of(tight, 400_000) == b"400")


def status_of(server: LiveServer, num_bytes: int) -> bytes:
    with begin_body(server, num_bytes) as connection:
        connection.sendall(b"[")
        return connection.recv(65536)[9:12]


# The threads.


class Threads:
    """Blocks the heavy threads until told otherwise."""

    def __init__(self, off_loop: OffLoop) -> None:
        self.release = threading.Event()
        self.blocked: list[Future[bool]] = [off_loop._heavy.submit(self.release.wait, 10) for _ in range(2)]


@pytest.fixture
def off_loop() -> OffLoop:
    return OffLoop(ServerSettings(off_loop_bytes=10, heavy_bytes=100))


def test_where_work_is_done(off_loop: OffLoop) -> None:
    async def names() -> list[str]:
        return [await off_loop.run(size, lambda: threading.current_thread().name) for size in (10, 11, 100, 101)]

    inline, *asyncios, heavy = asyncio.run(names())
    assert inline == threading.current_thread().name
    assert all(name.startswith("asyncio_") for name in asyncios)
    assert heavy.startswith("heavy")


def test_heavy_work_keeps_nothing_else_waiting(off_loop: OffLoop) -> None:
    threads = Threads(off_loop)

    async def work() -> None:
        heavy = asyncio.ensure_future(off_loop.run(101, lambda: "heavy"))
        assert await off_loop.run(10, lambda: "small") == "small"
        assert await off_loop.run(100, lambda: "large") == "large"
        assert not heavy.done()
        threads.release.set()
        assert await heavy == "heavy"

    asyncio.run(work())


def test_work_nobody_waits_for_never_begins(off_loop: OffLoop) -> None:
    threads, begun = Threads(off_loop), []

    async def work() -> None:
        heavy = asyncio.ensure_future(off_loop.run(101, lambda: begun.append(1)))
        await asyncio.sleep(0.01)
        heavy.cancel()
        await asyncio.gather(heavy, return_exceptions=True)
        threads.release.set()
        await off_loop.run(101, lambda: None)

    asyncio.run(work())
    assert begun == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
def test_a_client_that_goes_away_takes_its_work_along(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Its body waits for a thread, which somebody else's work has."""
    engine = CountingEngine()
    app = create_app(engine, ServerSettings())
    app_state: AppState = app.state.app_state
    monkeypatch.setattr(harness, "create_app", lambda *_: app)
    with live_server(engine, ServerSettings()) as server:
        threads = Threads(app_state.off_loop)
        fields = (
            {"messages": message("a" * 70_000), "truncate_prompt_tokens": 5}
            if "chat" in path
            else {"prompt": "a" * 70_000}
        )
        body = json.dumps({"model": MODEL_ID, **fields}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(head.encode() + body)
            wait_until(lambda: app_state.off_loop._heavy._work_queue.qsize() == 1)
            assert app_state.body_budget.held_bytes == len(body)
        wait_until(lambda: app_state.body_budget.held_bytes == 0)
        threads.release.set()
    assert engine.tokenised == []


def test_a_failure_in_a_heavy_thread_is_this_requests_alone(asgi: Asgi, engine: CountingEngine) -> None:
    def fail(text: str, **_flags: bool) -> list[int]:
        raise MemoryError

    encode, engine.tokenizer.encode = engine.tokenizer.encode, fail  # type: ignore[method-assign,assignment]
    assert asgi.post("/tokenize", {"prompt": "a" * 70_000}).status == 500
    assert asgi.app.state.app_state.body_budget.held_bytes == 0
    engine.tokenizer.encode = encode  # type: ignore[method-assign]
    assert asgi.post("/tokenize", {"prompt": "a" * 70_000}).json["count"] == 70_001


# Wrong bodies with many wrong parts.


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {str(i): "x" for i in range(2_000)}}, "logit_bias"),
        ({"stop": [1] * 10_000}, "stop"),
        ({"stop_token_ids": ["x"] * 10_000}, "stop_token_ids[0]"),
        ({"messages": [{"role": "nobody", "x" * 60_000: 1}] * 2}, "messages[0].role"),
        ({f"f{i}": 1 for i in range(10_000)}, None),
    ],
)
def test_only_a_few_findings_are_made(asgi: Asgi, fields: dict[str, Any], param: str | None) -> None:
    """Each takes 500 bytes and 2 microseconds."""
    answer = asgi.post("/v1/chat/completions", {**chat_body(), **fields})
    assert (answer.status, answer.error["param"]) == (400, param)
    with pytest.raises(ValidationError) as caught:
        ChatCompletionRequest.model_validate({**chat_body(), **fields})
    assert caught.value.error_count() <= 256


def test_what_is_loaded_is_left_out_of_collections_of_garbage(
    monkeypatch: pytest.MonkeyPatch, engine: CountingEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each keeps all threads waiting, 20 to 50 ms with all that was imported and loaded."""
    frozen: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    process = ServerProcess(engine, ServerSettings(), Listeners((), "http://127.0.0.1:1"))
    process._on_loaded(None)
    assert frozen == [1]
    assert "Ready: " in capsys.readouterr().out


def test_many_at_once(asgi: Asgi, engine: CountingEngine) -> None:
    """More heavy requests than threads, and every answer is its own."""
    with ThreadPoolExecutor(8) as pool:
        bodies = [{"prompt": letter * 70_000} for letter in "abcdefgh"]
        answers = list(pool.map(lambda body: asgi.post("/tokenize", body).json["tokens"][1:], bodies))
    assert answers == [engine.tokenizer.encode(body["prompt"]) for body in bodies]
