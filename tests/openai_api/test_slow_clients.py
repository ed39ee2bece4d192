"""Clients that send or read slowly: each wait has one deadline, which bytes one at a time do not put off."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import httpx
import pytest

from openai_api.settings import ServerSettings
from openai_api.transport import joined_writes, read_deadline
from openai_api.transport.read_deadline import ReadDeadline, Wait
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer, SharedServer, chat_body, chunks_of, shared_server, wait_until
from tests.openai_api.raw_http import BODY, GET_HEALTH, JSON_HEAD, connect, post, sized

SOON_S = 8  # of a limit below half a second; the server's own are 10 s and more
# Short limits, so that the tests of slow clients are not slow themselves.
SLOW = ServerSettings(header_timeout_s=0.3, body_timeout_s=0.4, write_timeout_s=0.5, idle_timeout_s=1)
CHAT = "/v1/chat/completions"
NOT_FOUND = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n"


@pytest.fixture(scope="module")
def slow_server() -> Iterator[SharedServer]:
    with pytest.MonkeyPatch.context() as patch, shared_server(SLOW) as server:
        patch.setattr(joined_writes, "LINGER_S", 0.3)
        patch.setattr(read_deadline, "BODY_GRACE_S", 0.3)
        yield server


@pytest.fixture
def slow(slow_server: SharedServer, engine: FakeEngine) -> LiveServer:
    return slow_server.use(engine)


def all_at_once(check: Callable[..., object], cases: Iterable[tuple[object, ...]]) -> None:
    """``check`` of each case, each in a thread of its own: they wait for the same deadlines."""
    listed = list(cases)
    with ThreadPoolExecutor(len(listed)) as pool:
        for future in [pool.submit(check, *case) for case in listed]:
            future.result()


def test_a_deadline_is_not_put_off_by_waiting_for_the_same() -> None:
    late: list[Wait] = []

    async def wait() -> None:
        deadline = ReadDeadline(asyncio.get_running_loop(), SLOW, on_late=late.append)
        deadline.wait_for(Wait.BODY)
        deadline.wait_for(Wait.HEAD)
        await asyncio.sleep(0.2)
        deadline.wait_for(Wait.HEAD)
        await asyncio.sleep(0.2)
        deadline.wait_for(None)

    asyncio.run(wait())
    assert late == [Wait.HEAD]


# Heads.


def test_a_connection_that_says_nothing_is_closed(slow: LiveServer) -> None:
    with connect(slow) as connection:
        begin = time.monotonic()
        assert connection.is_closed()
        assert 0.2 < time.monotonic() - begin < SOON_S


def test_a_slow_head(slow: LiveServer) -> None:
    def check(before: bytes, part: bytes) -> None:
        with connect(slow) as connection:
            if before:
                assert connection.send(before).answer().status == 200
            begin = time.monotonic()
            answer = connection.send(part).answer()
            assert (answer.status, answer.error["code"]) == (408, "request_timeout")
            assert 0.2 < time.monotonic() - begin < SOON_S
            assert connection.is_closed()

    all_at_once(check, product((b"", GET_HEALTH), (b"G", b"GET /health HTTP/1.1\r\n", GET_HEALTH[:-2])))


def test_a_drip_does_not_put_the_deadline_off(slow: LiveServer) -> None:
    """Blank lines are no head, nor do they keep a connection."""

    def check(before: bytes, byte: bytes) -> None:
        with connect(slow) as connection:
            if before:
                assert connection.send(before).answer().status == 200
            assert connection.drip(byte, for_s=6) < 4.5, (before, byte)

    all_at_once(check, product((b"", GET_HEALTH), (b"x", b"\r\n", b"\n")))


def test_blank_lines_before_a_request(slow: LiveServer) -> None:
    with connect(slow) as connection:
        for _ in range(3):
            assert connection.send(b"\r\n\r\n", b"\r\n" + GET_HEALTH).answer().status == 200


def test_a_blank_line_after_a_request_is_no_slow_head(slow: LiveServer) -> None:
    slow.engine.script = Script(prefill_s=0.5)
    with connect(slow) as connection:
        assert connection.send(post(CHAT, chat_body()), b"\r\n").answer().status == 200
        time.sleep(0.4)  # more than a head may take
        assert connection.send(GET_HEALTH).answer().status == 200


def test_a_part_of_a_head_during_a_long_answer(slow: LiveServer) -> None:
    """It has its time from the end of the answer on, and no more than that."""
    slow.engine.script = Script(prefill_s=0.5)

    def check(part: bytes, rest: bytes) -> None:
        with connect(slow) as connection:
            connection.send(post(CHAT, chat_body()), part)
            assert connection.answer().status == 200
            begin = time.monotonic()
            assert connection.send(rest).answer().status == (200 if rest else 408)
            assert rest or 0.2 < time.monotonic() - begin < SOON_S

    def check_drip() -> None:
        with connect(slow) as connection:
            assert connection.send(post(CHAT, chat_body()), b"GET /").drip(b"x", for_s=4) < 2.5
            assert connection.answer().status == 200

    all_at_once(check, ((part, rest) for n in (1, 20) for part in [GET_HEALTH[:n]] for rest in (b"", GET_HEALTH[n:])))
    all_at_once(check_drip, [()])


def test_an_idle_connection_is_closed(slow: LiveServer) -> None:
    with connect(slow) as connection:
        assert connection.send(GET_HEALTH).answer().status == 200
        assert connection.is_closed()


# Bodies.


def test_a_slow_body(slow: LiveServer) -> None:
    with connect(slow) as connection:
        begin = time.monotonic()
        answer = connection.send(JSON_HEAD + b'Content-Length: 100\r\n\r\n{"pro').answer()
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert 0.3 < time.monotonic() - begin < SOON_S
        assert connection.is_closed()


CHUNKED = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


DRIPS = [
    (JSON_HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    (CHUNKED, b"1\r\n \r\n"),
    (CHUNKED, b"0"),
    (CHUNKED + b"1;", b"x"),
    (CHUNKED + b"0\r\n", b"x"),
    (CHUNKED + b"0\r\nx: ", b"y"),
    (CHUNKED + b"0\r\n", b"x: y\r\n"),
    (NOT_FOUND.replace(b"40", b"9999"), b" "),
]


def test_a_body_that_drips(slow: LiveServer) -> None:
    """The time is for all of it: sizes of chunks, their extensions and trailers."""

    def check(begin: bytes, byte: bytes) -> None:
        with connect(slow) as connection:
            assert connection.send(begin).drip(byte, for_s=7) < 5.5, (begin, byte)

    all_at_once(check, DRIPS)


def test_a_slow_body_nobody_asked_for(slow: LiveServer) -> None:
    with connect(slow) as connection:
        assert connection.send(NOT_FOUND + b"{").answer().status == 404
        assert connection.is_closed()


def test_the_end_of_a_body_nobody_asked_for(slow: LiveServer) -> None:
    """The connection goes on, and is idle from then on."""
    with connect(slow) as connection:
        assert connection.send(NOT_FOUND + b"{").answer().status == 404
        assert connection.send(b" " * 39 + GET_HEALTH).answer().status == 200
        assert connection.send(NOT_FOUND).answer().status == 404
        assert connection.send(b" " * 40).is_closed()


def test_a_body_behind_a_long_answer(slow: LiveServer) -> None:
    """Its time begins when the server turns to it; the answer before it is not cut."""
    slow.engine.script = Script(text="ab", prefill_s=0.6, token_s=0.15)
    with connect(slow) as connection:
        connection.send(post(CHAT, chat_body(stream=True)) + JSON_HEAD + b'Content-Length: 100\r\n\r\n{"pro')
        assert chunks_of(connection.answer().body)
        assert connection.answer().status == 408
        assert connection.is_closed()


def test_a_body_in_time(slow: LiveServer) -> None:
    head = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
    with connect(slow) as connection:
        for _ in range(3):
            assert connection.send(head, BODY[:5], BODY[5:]).answer().status == 200


# Readers.


def test_a_client_that_does_not_read_its_stream(slow: LiveServer) -> None:
    slow.engine.script = Script(text="x" * 4000)
    body = json.dumps(chat_body(stream=True, ignore_eos=True, max_tokens=4000, n=8)).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((slow.host, slow.port))
        sock.sendall(sized(body, JSON_HEAD.replace(b"/tokenize", CHAT.encode())))
        wait_until(lambda: slow.engine.calls)
        wait_until(lambda: slow.engine.aborted, timeout_s=10)
        assert not slow.engine.running


def test_a_slow_model_is_no_slow_client(slow: LiveServer) -> None:
    """None of the deadlines above may end a request that only takes its time."""
    slow.engine.script = Script(text="a", queue_s=0.8, prefill_s=0.8, token_s=0.6)

    def ask(stream: bool) -> int:
        return httpx.post(f"{slow.url}{CHAT}", json=chat_body(stream=stream), timeout=20).status_code

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(ask, (True, False))) == [200, 200]
    assert not slow.engine.aborted
