"""Completions over connections that stay open, with as little work in the client as can be.

Owns HTTP as far as these answers need it: a length, or chunks whose end is known by their last
bytes. Knows nothing of what is measured.
"""

import json
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat

HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "


@dataclass
class Answer:
    """One answer as it comes. Times are of ``perf_counter``; ``came_s`` has one for each token that
    was streamed, or one for the whole.
    """

    is_streamed: bool
    asked_s: float
    content: bytes = b""
    came_s: list[float] = field(default_factory=list)

    def take(self, data: bytes) -> bool:
        """Take in what has come; whether more will."""
        assert data, f"the server has closed the connection: {self.content[:300]!r}"
        now_s = time.perf_counter()
        self.content += data
        if self.is_streamed:
            self.came_s += [now_s] * data.count(b'"text":')
            return not self.content.endswith(b"\r\n0\r\n\r\n")
        head, _, body = self.content.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length is None or len(body) < int(length[1]):
            return True
        self.came_s.append(now_s)
        return False

    def num_tokens(self) -> int:
        usage = re.search(rb'"completion_tokens": ?(\d+)', self.content)
        assert usage, self.content[:300]
        return int(usage[1])


class KeptConnections:
    """As many as are needed at once, opened when they are first needed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._idle: list[socket.socket] = []

    def ask(
        self, prompts: list[list[int]], max_tokens: int, *, stream: bool, at_s: Sequence[float] | None = None
    ) -> list[Answer]:
        """``max_tokens`` for each of ``prompts``, all at once or ``at_s`` from now, in order. Returns when all are
        answered.
        """
        requests = [_request(prompt, max_tokens, stream=stream) for prompt in prompts]
        began_s = time.perf_counter()
        due = deque((began_s + after_s, request) for after_s, request in zip(at_s or repeat(0), requests, strict=False))
        answers: list[Answer] = []
        with selectors.DefaultSelector() as selector:
            while due or selector.get_map():
                while due and due[0][0] <= time.perf_counter():
                    answers.append(Answer(stream, time.perf_counter()))
                    connection = self._idle.pop() if self._idle else socket.create_connection(self._address)
                    connection.sendall(due.popleft()[1])
                    selector.register(connection, selectors.EVENT_READ, answers[-1])
                self._read(selector, max(0.0, due[0][0] - time.perf_counter()) if due else None)
        return answers

    def _read(self, selector: selectors.BaseSelector, timeout_s: float | None) -> None:
        for key, _ in selector.select(timeout_s):
            assert isinstance(key.fileobj, socket.socket)
            if not key.data.take(key.fileobj.recv(1 << 16)):
                selector.unregister(key.fileobj)
                self._idle.append(key.fileobj)


def _request(prompt: list[int], max_tokens: int, *, stream: bool) -> bytes:
    body: dict[str, object] = {"model": "m", "prompt": prompt, "max_tokens": max_tokens}
    body |= {"temperature": 0, "ignore_eos": True, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    encoded = json.dumps(body)
    return f"{HEAD}{len(encoded)}\r\n\r\n{encoded}".encode()
