"""Completions over connections that stay open, with as little work in the client as can be.

Owns HTTP as far as these answers need it: a length, or chunks whose end is known by their last
bytes. Knows nothing of what is measured.
"""

import json
import re
import selectors
import socket
import time
from dataclasses import dataclass, field

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
        self._connections: list[socket.socket] = []

    def ask(self, prompts: list[list[int]], max_tokens: int, *, stream: bool) -> list[Answer]:
        """All at once, ``max_tokens`` for each of ``prompts``; returns when all are answered."""
        while len(self._connections) < len(prompts):
            self._connections.append(socket.create_connection(self._address))
        requests = [_request(prompt, max_tokens, stream=stream) for prompt in prompts]
        answers = []
        with selectors.DefaultSelector() as selector:
            for connection, request in zip(self._connections, requests, strict=False):
                answers.append(Answer(stream, time.perf_counter()))
                connection.sendall(request)
                selector.register(connection, selectors.EVENT_READ, answers[-1])
            while selector.get_map():
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    if not key.data.take(key.fileobj.recv(1 << 16)):
                        selector.unregister(key.fileobj)
        return answers


def _request(prompt: list[int], max_tokens: int, *, stream: bool) -> bytes:
    body: dict[str, object] = {"model": "m", "prompt": prompt, "max_tokens": max_tokens}
    body |= {"temperature": 0, "ignore_eos": True, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    encoded = json.dumps(body)
    return f"{HEAD}{len(encoded)}\r\n\r\n{encoded}".encode()
