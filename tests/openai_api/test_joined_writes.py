"""When bytes go to the socket, and how a connection ends."""

import asyncio
import socket
import sys
from asyncio import selector_events
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from openai_api.app import create_app
from openai_api.run import server_config
from openai_api.settings import ServerSettings
from openai_api.transport import joined_writes
from openai_api.transport.joined_writes import MAX_JOINED_BYTES, JoinedWrites
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer, chat_body, chunks_of, live_server
from tests.openai_api.raw_http import GET_HEALTH, ask, connect, post

CHAT = "/v1/chat/completions"


class Recorder(asyncio.Transport):
    """A transport that remembers what was done to it; ``num_unsent`` bytes are never taken."""

    def __init__(self, num_unsent: int = 0) -> None:
        super().__init__()
        self.done: list[bytes | str] = []
        self.num_unsent = num_unsent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def write_eof(self) -> None:
        self.done.append("eof")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.done or "abort" in self.done

    def get_write_buffer_size(self) -> int:
        return self.num_unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def run(act: Callable[[JoinedWrites], Coroutine[Any, Any, None]], recorder: Recorder) -> list[bytes | str]:
    async def in_loop() -> None:
        loop = asyncio.get_running_loop()
        await act(JoinedWrites(recorder, loop=loop, write_timeout_s=0.05))

    asyncio.run(in_loop())
    return recorder.done


def test_a_head_goes_out_with_what_follows_it() -> None:
    async def act(transport: JoinedWrites) -> None:
        for head in (b"a", b"b"):
            transport.hold_next()
            transport.write(head)
            assert transport.get_write_buffer_size() == 1
            transport.write(bytearray(b"-"))
            transport.write(b"+")
            await asyncio.sleep(0)

    assert run(act, Recorder()) == [b"a-", b"+", b"b-", b"+"]


def test_a_head_alone_does_not_wait() -> None:
    async def act(transport: JoinedWrites) -> None:
        transport.hold_next()
        transport.write(b"head")
        await asyncio.sleep(0)
        transport.write(b"body")

    assert run(act, Recorder()) == [b"head", b"body"]


def test_much_is_not_copied() -> None:
    async def act(transport: JoinedWrites) -> None:
        transport.hold_next()
        transport.write(b"head")
        transport.write(b"x" * (MAX_JOINED_BYTES + 1))

    assert run(act, Recorder()) == [b"head", b"x" * (MAX_JOINED_BYTES + 1)]


def test_closing_is_behind_the_last_byte() -> None:
    async def act(transport: JoinedWrites) -> None:
        transport.hold_next()
        transport.write(b"a")
        transport.close()
        transport.close()
        await asyncio.sleep(0)

    assert run(act, Recorder()) == [b"a", "close"]


def test_a_client_that_is_still_sending_is_closed_in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_writes, "LINGER_S", 0.01)

    async def act(transport: JoinedWrites) -> None:
        transport.is_sent_to = True
        transport.write(b"a")
        transport.close()
        assert transport.is_closing()
        transport.write(b"too late")
        await asyncio.sleep(0.1)

    assert run(act, Recorder()) == [b"a", "eof", "abort"]


def test_an_answer_that_is_not_taken_does_not_hold_its_connection() -> None:
    async def act(transport: JoinedWrites) -> None:
        transport.close()
        await asyncio.sleep(0.2)

    assert run(act, Recorder(num_unsent=1)) == ["close", "abort"]


def test_a_stalled_reader_has_one_deadline() -> None:
    async def stalls(transport: JoinedWrites) -> None:
        transport.expect_progress()
        await asyncio.sleep(0.2)

    async def goes_on(transport: JoinedWrites) -> None:
        transport.expect_progress()
        transport.made_progress()
        await asyncio.sleep(0.2)

    assert run(stalls, Recorder()) == ["abort"]
    assert run(goes_on, Recorder()) == []


def test_nothing_happens_to_a_lost_connection() -> None:
    async def act(transport: JoinedWrites) -> None:
        transport.expect_progress()
        transport.write(b"a")
        transport.close()
        transport.forget()
        await asyncio.sleep(0.2)

    assert run(act, Recorder()) == [b"a", "close"]


# With uvicorn and a socket.


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What asyncio was asked to write to a socket, piece by piece."""
    pieces: list[bytes] = []
    transport = cast(Any, selector_events)._SelectorSocketTransport
    write = transport.write

    def record(self: Any, data: bytes) -> None:
        pieces.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(transport, "write", record)
    return pieces


def test_a_short_answer_is_one_write(live: LiveServer, written: list[bytes]) -> None:
    assert ask(live, GET_HEALTH).status == 200
    (answer,) = written
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"}")


def test_each_event_is_one_write(live: LiveServer, engine: FakeEngine, written: list[bytes]) -> None:
    engine.script = Script(text="abc", token_s=0.01)
    assert chunks_of(ask(live, post(CHAT, chat_body(stream=True))).body)
    assert written[0].startswith(b"HTTP/1.1 200")
    assert written[-1].endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert all(b"data: " in piece for piece in written)


def test_small_packets_are_not_held_back(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the listener was made with."""
    no_delay: list[int] = []
    send_at_once = joined_writes._send_at_once

    def record(transport: asyncio.Transport) -> None:
        connection = transport.get_extra_info("socket")
        assert connection.proto == 0
        no_delay.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        send_at_once(transport)
        no_delay.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(joined_writes, "_send_at_once", record)
    assert ask(live, GET_HEALTH).status == 200
    assert no_delay[0] == 0
    assert no_delay[1] != 0


def test_a_unix_socket_has_no_packets(engine: FakeEngine, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    with live_server(engine, ServerSettings(), listener=listener), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "s"))
        sock.sendall(GET_HEALTH)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_stream_to_a_client_that_closes(live: LiveServer, engine: FakeEngine) -> None:
    """Its last bytes are there when the connection ends."""
    engine.script = Script(token_s=0.001)
    with connect(live) as connection:
        answer = connection.send(post(CHAT, chat_body(stream=True), b"Connection: close")).answer()
        assert chunks_of(answer.body)
        assert connection.is_closed()


def test_the_loop_is_asyncio_s_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = ModuleType("uvloop")
    uvloop.new_event_loop = lambda: pytest.fail("another loop was taken")
    monkeypatch.setitem(sys.modules, "uvloop", uvloop)
    settings = ServerSettings()
    factory = server_config(create_app(FakeEngine(), settings), settings).get_loop_factory()
    assert factory is not None
    loop = factory()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()
