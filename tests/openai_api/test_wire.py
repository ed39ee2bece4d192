"""What a real connection may do: sizes at their limits, things that are not HTTP."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from openai_api.settings import MIB
from tests.openai_api.harness import LiveServer

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
