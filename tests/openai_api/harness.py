"""How the tests call the server: over a real socket in a thread, or straight into the ASGI application."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from engine.engine_info import EngineStats
from openai_api.app import create_app
from openai_api.run import HttpServer, server_config
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine

JSON = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "Hi"}]


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL_ID, "messages": MESSAGES, **fields}


def completion_body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL_ID, "prompt": "Hi", "max_tokens": 64, **fields}


@dataclass
class LiveServer:
    engine: FakeEngine
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class CurrentEngine:
    """Whatever engine is set, to an application that was made before it."""

    def __init__(self) -> None:
        self.engine = FakeEngine()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def stats(self) -> EngineStats:
        return self.engine.stats()


@dataclass
class SharedServer:
    """A server for many tests: to start and stop one takes a third of a second."""

    current: CurrentEngine
    host: str
    port: int

    def use(self, engine: FakeEngine) -> LiveServer:
        self.current.engine = engine
        return LiveServer(engine, self.host, self.port)


@contextmanager
def shared_server(settings: ServerSettings) -> Iterator[SharedServer]:
    current = CurrentEngine()
    with live_server(cast(FakeEngine, current), settings) as live:
        yield SharedServer(current, live.host, live.port)


@contextmanager
def live_server(
    engine: FakeEngine, settings: ServerSettings, *, listener: socket.socket | None = None
) -> Iterator[LiveServer]:
    """uvicorn with all of our limits, on loopback or another socket, in a thread."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    server = HttpServer(server_config(create_app(engine, settings), settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        address = listener.getsockname()
        yield LiveServer(engine, *(address if listener.family == socket.AF_INET else (address, 0)))
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    """The limit is for what never happens: a machine that computes something else may take seconds for anything."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    path: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """OpenAI and Anthropic have an object here, Ollama a text."""
        error = self.json["error"]
        return {"message": error} if isinstance(error, str) else error


@dataclass
class Asgi:
    """Calls the application without a socket: fast, and with any bytes one likes."""

    engine: FakeEngine
    settings: ServerSettings

    def __post_init__(self) -> None:
        self.app = create_app(self.engine, self.settings)

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        connection: Mapping[str, Any] | None = None,
    ) -> Answer:
        return asyncio.run(self.arequest(method, path, body, headers, connection))

    def post(self, path: str, body: object) -> Answer:
        return self.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), JSON)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    async def arequest(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        connection: Mapping[str, Any] | None = None,
    ) -> Answer:
        """``connection``: other ends than loopback, as ``client`` and ``server``."""
        named = {"host": "localhost", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in named.items() if v is not None],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            **(connection or {}),
        }
        incoming = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if not incoming:
                await asyncio.Event().wait()
            return incoming.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        head = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return Answer(sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:]), path)


def events_of(body: bytes | str) -> list[str]:
    """The data of each event, after checking the grammar: comments, then one line ``data: ...`` and a blank line."""
    text = body if isinstance(body, str) else body.decode()
    assert text.endswith("\n\n")
    blocks = text[:-2].split("\n\n")
    events = []
    for block in blocks:
        *comments, event = block.split("\n")
        assert all(line.startswith(": ") for line in comments)
        assert event.startswith("data: ")
        assert "\r" not in block
        events.append(event.removeprefix("data: "))
    return events


def chunks_of(body: bytes | str) -> list[Any]:
    """The chunks of a stream that ended well."""
    *chunks, last = events_of(body)
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def lines_of(body: bytes | str) -> list[Any]:
    """The objects of Ollama's streams: one a line, and nothing else, as its clients read them."""
    text = body if isinstance(body, str) else body.decode()
    assert text.endswith("\n")
    return [json.loads(line) for line in text[:-1].split("\n")]
