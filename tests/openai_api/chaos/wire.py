"""HTTP/1.1 on bare sockets, so that an attacker can stop, stall or lie anywhere in a request.

Owns connections and the reading of answers; knows no endpoint. One event loop carries all
connections of a run.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

JSON_TYPE: Mapping[str, str] = {"Content-Type": "application/json"}
# A stopped server and a full queue (60 s) take their time; whoever waits longer was forgotten.
PATIENCE_S = 120.0
LARGEST_LINE = 1 << 22


class NoAnswerError(Exception):
    """The server hung up, or stayed silent, where an answer was due."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int


@dataclass(frozen=True)
class Answer:
    """``status`` 0: the connection ended without an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's word for programs, empty where there is none."""
        try:
            return str(self.json["error"]["code"])
        except (ValueError, TypeError, KeyError):
            return ""


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def message(method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request; ``headers`` go over the usual ones."""
    usual = {"Host": "localhost"} | ({} if body is None else {**JSON_TYPE, "Content-Length": str(len(body))})
    return head(method, path, usual | dict(headers or {})) + (body or b"")


class Connection:
    """One TCP connection. ``open`` makes it; leaving ``async with`` closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls, address: Address, *, source: str = "127.0.0.1", receive_buffer: int | None = None
    ) -> "Connection":
        """``source`` is the client's address, by which the server tells callers without a key
        apart.

        A small ``receive_buffer`` (bytes) makes the server feel at once that nothing is read.
        """
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((source, 0))
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
        except BaseException:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock, limit=receive_buffer or LARGEST_LINE))

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()  # nobody may ever read what is left
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset_on_close(self) -> None:
        """Close with RST, as a killed client does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def send(self, data: bytes) -> None:
        """A server that refuses may stop reading; its answer is still to be read."""
        self.writer.write(data)
        with contextlib.suppress(OSError):
            await self.writer.drain()

    async def answer(self) -> Answer:
        """The next answer, whole; status 0 if the connection ended instead."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._answer()
        except (OSError, asyncio.IncompleteReadError) as error:
            if isinstance(error, TimeoutError):
                raise NoAnswerError(f"silent for {PATIENCE_S:.0f} s") from None
            return Answer(0, {})

    async def _answer(self) -> Answer:
        first = await self.answer_head()
        if first.status == 100:
            first = await self.answer_head()
        if first.headers.get("transfer-encoding") == "chunked":
            return Answer(first.status, first.headers, b"".join([chunk async for chunk in self._chunks()]))
        length = first.headers.get("content-length")
        body = await (self.reader.read() if length is None else self.reader.readexactly(int(length)))
        return Answer(first.status, first.headers, body)

    async def answer_head(self) -> Answer:
        """Status and headers, names in small letters."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = text.rstrip("\r\n").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, value in pairs})

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readuntil(b"\r\n")


def error_complaint(answer: Answer) -> str | None:
    """Of what the contract says of an error's body, the first thing that is not so."""
    if len(answer.body) >= 4096:
        return f"an error body of {len(answer.body)} bytes"
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return f"an error of type {answer.headers.get('content-type')}"
    try:
        error = answer.json["error"]
        members = {name: type(value) for name, value in error.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"not an error body: {answer.body[:80]!r}"
    if set(members) != {"message", "type", "param", "code"} or members["message"] is not str:
        return f"an error with the members {sorted(members)}"
    return None


def events_of(body: bytes) -> list[bytes]:
    """The data of each event of a stream, one line in each.

    A comment is a line too, alone or before an event's data.
    """
    return [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
