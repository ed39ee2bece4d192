"""What a real connection may do: sizes at their limits, slow clients, many clients, things that are not HTTP."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from openai_api.settings import MIB, ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer, SharedServer, chat_body, live_server, shared_server, wait_until

HEAD = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def connection(live: LiveServer, timeout_s: float = 10) -> Iterator[socket.socket]:
    with socket.create_connection((live.host, live.port), timeout=timeout_s) as sock:
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """Until the server hangs up."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def read_answer(sock: socket.socket) -> tuple[int, bytes]:
    """One response that has a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = sock.recv(65536)
        assert data, "the server hung up without an answer"
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += sock.recv(65536)
    return int(head.split()[1]), body


def code_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def tokenize_body(size: int) -> bytes:
    body = b'{"prompt":"x"' + b" " * (size - 14) + b"}"
    assert len(body) == size
    return body


def test_the_largest_body(live: LiveServer) -> None:
    """Announced or in chunks, 4 MiB are taken and one byte more is not; the connection lives on."""
    limit = 4 * MIB
    with httpx.Client(base_url=live.url, timeout=30) as client:
        for size, status in ((limit - 1, 200), (limit, 200), (limit + 1, 413)):
            body = tokenize_body(size)
            for content in (body, iter([body[:1000], body[1000:]])):
                answer = client.post("/tokenize", content=content, headers={"content-type": "application/json"})
                assert answer.status_code == status
                if status == 413:
                    assert answer.json()["error"]["code"] == "request_too_large"
        assert client.get("/health").status_code == 200


def test_an_announced_length_is_believed_before_the_body_has_come(live: LiveServer) -> None:
    for length in (4 * MIB + 1, 10**15):
        with connection(live) as sock:
            sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length)
            status, body = read_answer(sock)
            assert (status, code_of(body)) == (413, "request_too_large")


def test_a_length_that_is_none(live: LiveServer) -> None:
    for length in (b"-1", b"x", b"1, 2", b"9" * 30):
        with connection(live) as sock:
            sock.sendall(HEAD + b"Content-Length: " + length + b"\r\n\r\n{}")
            status, body = read_answer(sock)
            assert (status, code_of(body)) == (400, "invalid_http")


def padded_head(size: int) -> bytes:
    """A request whose target and headers count exactly ``size`` bytes: ``/health``, ``Host: localhost``, ``x: ...``."""
    used = len("/health") + len("host: localhost\r\n") + len("x: \r\n")
    return b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * (size - used) + b"\r\n\r\n"


def test_the_largest_head(live: LiveServer) -> None:
    limit = 16 * 1024
    for size, status in ((limit - 1, 200), (limit, 200), (limit + 1, 431)):
        with connection(live) as sock:
            sock.sendall(padded_head(size))
            answer_status, body = read_answer(sock)
            assert answer_status == status
            if status == 431:
                assert code_of(body) == "headers_too_large"
                assert is_closed(sock)


@pytest.mark.parametrize("endless", [b"y" * 1000, b"x: y\r\n" * 100, b"GET /"])
def test_a_head_without_an_end_is_cut(live: LiveServer, endless: bytes) -> None:
    with connection(live) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: ")
        received = b""
        try:
            for _ in range(100_000 // len(endless) + 5000):
                sock.sendall(endless)
        except OSError:
            pass
        try:
            received = read_all(sock)
        except OSError:
            received = b"431"
        assert b"431" in received or b"400" in received
    assert httpx.get(f"{live.url}/health").status_code == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        b"HELLO\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n Folded: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http(live: LiveServer, garbage: bytes) -> None:
    with connection(live) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        received = read_all(sock)
        if received:
            assert int(received.split()[1]) in {400, 403, 404, 408}
            assert set(json.loads(received.partition(b"\r\n\r\n")[2])["error"]) == {"message", "type", "param", "code"}
            assert b"x-request-id" in received
    assert httpx.get(f"{live.url}/health").status_code == 200


def test_an_upgrade_is_not_followed(live: LiveServer) -> None:
    with connection(live) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_answer(sock)[0] == 200


def test_requests_in_a_row_on_one_connection(live: LiveServer) -> None:
    """Also after an answer that came before the body had been read."""
    with connection(live) as sock:
        for _ in range(3):
            body = b'{"prompt":"x"}'
            sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert read_answer(sock)[0] == 200
            body = b"x" * 200_000
            sock.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert read_answer(sock)[0] == 404


# Short limits, so that the tests of slow clients are not slow themselves.
SLOW = ServerSettings(header_timeout_s=0.3, body_timeout_s=0.5, write_timeout_s=0.5, idle_timeout_s=1)


@pytest.fixture(scope="module")
def slow_server() -> Iterator[SharedServer]:
    with shared_server(SLOW) as server:
        yield server


@pytest.fixture
def slow(slow_server: SharedServer, engine: FakeEngine) -> LiveServer:
    return slow_server.use(engine)


def test_a_connection_that_says_nothing_is_closed(slow: LiveServer) -> None:
    with connection(slow) as sock:
        begin = time.monotonic()
        assert read_all(sock) == b""
        assert 0.2 < time.monotonic() - begin < 3


def test_a_slow_head(slow: LiveServer) -> None:
    with connection(slow) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        begin = time.monotonic()
        status, body = read_answer(sock)
        assert (status, code_of(body)) == (408, "request_timeout")
        assert 0.2 < time.monotonic() - begin < 3


def test_a_slow_second_head(slow: LiveServer) -> None:
    with connection(slow) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0] == 200
        sock.sendall(b"GET ")
        assert read_answer(sock)[0] == 408


def test_a_drip_does_not_put_the_deadline_off(slow: LiveServer) -> None:
    begin = time.monotonic()
    with connection(slow) as sock, contextlib.suppress(OSError):
        while time.monotonic() - begin < 5:
            sock.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() - begin < 3


def test_a_slow_body(slow: LiveServer) -> None:
    with connection(slow) as sock:
        sock.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"pro')
        begin = time.monotonic()
        status, body = read_answer(sock)
        assert (status, code_of(body)) == (408, "request_timeout")
        assert 0.4 < time.monotonic() - begin < 3
        assert is_closed(sock)


def test_a_slow_body_nobody_asked_for(slow: LiveServer) -> None:
    with connection(slow) as sock:
        sock.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert read_answer(sock)[0] == 404
        assert is_closed(sock)


def test_an_idle_connection_is_closed(slow: LiveServer) -> None:
    with connection(slow) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0] == 200
        assert is_closed(sock)


def test_a_client_that_does_not_read_its_stream(slow: LiveServer) -> None:
    slow.engine.script = Script(text="x" * 1000, tokens_per_output=1000)
    body = json.dumps(chat_body(stream=True, ignore_eos=True, max_tokens=4000, n=8)).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((slow.host, slow.port))
        slow.engine.script = Script(text="x" * 4000)
        sock.sendall(HEAD.replace(b"/tokenize", b"/v1/chat/completions"))
        sock.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: slow.engine.calls)
        wait_until(lambda: slow.engine.aborted, timeout_s=10)
        assert not slow.engine.running


def test_an_empty_line_after_a_request_is_no_slow_head(slow: LiveServer) -> None:
    slow.engine.script = Script(prefill_s=1.0)
    with connection(slow) as sock:
        body = json.dumps(chat_body()).encode()
        head = HEAD.replace(b"/tokenize", b"/v1/chat/completions")
        sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.1)
        sock.sendall(b"\r\n")
        assert read_answer(sock)[0] == 200


def test_a_slow_model_is_no_slow_client(slow: LiveServer) -> None:
    """None of the deadlines above may end a request that only takes its time."""
    slow.engine.script = Script(text="a", queue_s=0.8, prefill_s=0.8, token_s=0.6)

    def ask(stream: bool) -> int:
        return httpx.post(f"{slow.url}/v1/chat/completions", json=chat_body(stream=stream), timeout=20).status_code

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(ask, (True, False))) == [200, 200]
    assert not slow.engine.aborted


def test_the_number_of_connections(engine: FakeEngine) -> None:
    limit = 5
    with live_server(engine, ServerSettings(max_connections=limit)) as live:
        request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        open_ones = [socket.create_connection((live.host, live.port), timeout=10) for _ in range(limit)]
        try:
            for sock in open_ones:
                sock.sendall(request)
                assert read_answer(sock)[0] == 200
            with connection(live) as one_more:
                one_more.sendall(request)
                status, body = read_answer(one_more)
                assert (status, code_of(body)) == (503, "too_many_connections")
                assert is_closed(one_more)
            open_ones.pop().close()
            time.sleep(0.1)
            with connection(live) as again:
                again.sendall(request)
                assert read_answer(again)[0] == 200
        finally:
            for sock in open_ones:
                sock.close()
