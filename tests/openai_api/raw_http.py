"""One connection, byte by byte: what no HTTP client would send, and what exactly came back."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.openai_api.harness import Answer, LiveServer

JSON_HEAD = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"prompt":"x"}'
GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def sized(body: bytes = BODY, head: bytes = JSON_HEAD) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes = BODY, *, head: bytes = JSON_HEAD, trailers: bytes = b"") -> bytes:
    chunks = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, trailers)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks


def post(path: str, body: dict[str, Any], *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST %s HTTP/%s" % (path.encode(), version), b"Host: localhost", b"Content-Type: application/json"]
    return sized(json.dumps(body).encode(), b"\r\n".join([*lines, *headers, b""]))


class RawConnection:
    """Keeps what has come beyond the answer that is read: the answers to pipelined requests."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""

    def send(self, *segments: bytes) -> "RawConnection":
        for number, segment in enumerate(segments):
            if number:
                time.sleep(0.03)
            self.sock.sendall(segment)
        return self

    def drip(self, byte: bytes, *, for_s: float, every_s: float = 0.03) -> float:
        """Send one byte after the other until the server hangs up, or for so long; the seconds it took."""
        begin = time.monotonic()
        try:
            while time.monotonic() - begin < for_s:
                self.sock.sendall(byte)
                time.sleep(every_s)
        except OSError:
            pass
        return time.monotonic() - begin

    def answer(self, *, to_head: bool = False) -> Answer:
        """The next response; its body has a length, or chunks, or ends with the connection."""
        while b"\r\n\r\n" not in self.received:
            assert self._receive(), f"the server hung up after {self.received!r}"
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(status.split()[1]), headers, b"" if to_head else self._body(headers))

    def rest(self) -> bytes:
        """All bytes until the server hangs up."""
        while self._receive():
            pass
        received, self.received = self.received, b""
        return received

    def is_closed(self) -> bool:
        """Waits for the server to hang up without another byte."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        self.received += data
        return data

    def _take(self, num_bytes: int) -> bytes:
        while len(self.received) < num_bytes:
            assert self._receive(), "the body was cut"
        taken, self.received = self.received[:num_bytes], self.received[num_bytes:]
        return taken

    def _line(self) -> bytes:
        while b"\r\n" not in self.received:
            assert self._receive(), "the body was cut"
        line, _, self.received = self.received.partition(b"\r\n")
        return line

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self._take(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return self.rest()
        body = b""
        while size := int(self._line(), 16):
            body += self._take(size)
            assert self._line() == b""
        assert self._line() == b""
        return body


@contextmanager
def connect(live: LiveServer, timeout_s: float = 10) -> Iterator[RawConnection]:
    with socket.create_connection((live.host, live.port), timeout=timeout_s) as sock:
        yield RawConnection(sock)


def ask(live: LiveServer, *segments: bytes) -> Answer:
    """The answer on a connection of its own."""
    with connect(live) as connection:
        return connection.send(*segments).answer()
