"""More connections than are allowed: idle ones give way, busy ones never do, and no file runs out."""

import asyncio
import errno
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

import pytest

from openai_api.open_files import within_file_limit
from openai_api.settings import ServerSettings
from openai_api.transport.connection_limit import ConnectionLimit
from openai_api.transport.joined_writes import JoinedWrites
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer, chat_body, chunks_of, live_server, wait_until
from tests.openai_api.raw_http import GET_HEALTH, JSON_HEAD, RawConnection, ask, connect, post, sized
from tests.openai_api.test_program import program, ready_line

LIMIT = 5
CHAT = "/v1/chat/completions"
STREAM = post(CHAT, chat_body(stream=True))


@pytest.fixture
def few(engine: FakeEngine) -> Iterator[LiveServer]:
    with live_server(engine, ServerSettings(max_connections=LIMIT)) as live:
        yield live


@contextmanager
def connections(live: LiveServer, number: int, *segments: bytes) -> Iterator[list[RawConnection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(live)).send(*segments) for _ in range(number)]


def test_up_to_the_limit_all_stay(few: LiveServer) -> None:
    with connections(few, LIMIT) as idle:
        for _ in range(2):
            assert [each.send(GET_HEALTH).answer().status for each in idle] == [200] * LIMIT


def test_the_longest_idle_gives_way(few: LiveServer) -> None:
    with connections(few, LIMIT) as idle:
        for each in [*idle, idle[0]]:  # now the second one has waited longest
            assert each.send(GET_HEALTH).answer().status == 200
        assert ask(few, GET_HEALTH).status == 200
        assert idle[1].is_closed()
        assert [each.send(GET_HEALTH).answer().status for each in (idle[0], *idle[2:])] == [200] * (LIMIT - 1)


@pytest.mark.parametrize("part", [b"", b"G", JSON_HEAD, b"\r\n"])
def test_connections_that_say_nothing_lock_nobody_out(few: LiveServer, part: bytes) -> None:
    """Neither new clients nor earlier ones, which have been idle for a longer time."""
    with connect(few) as earlier:
        assert earlier.send(GET_HEALTH).answer().status == 200
        with connections(few, 40, part):
            assert earlier.send(GET_HEALTH).answer().status == 200
            assert ask(few, sized()).status == 200


def test_bodies_that_nobody_wants_give_way(few: LiveServer) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n"
    with connect(few) as earlier:
        assert earlier.send(GET_HEALTH).answer().status == 200
        with connections(few, LIMIT - 1, head) as unfinished:
            assert [each.answer().status for each in unfinished] == [404] * (LIMIT - 1)
            assert ask(few, sized()).status == 200
            assert unfinished[0].is_closed()
            assert earlier.send(GET_HEALTH).answer().status == 200


def test_answers_are_never_cut_for_a_newcomer(few: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(token_s=0.02, prefill_s=0.2)
    with connections(few, LIMIT, STREAM) as busy:
        wait_until(lambda: len(engine.running) == LIMIT)
        answer = ask(few, sized())
        assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
        with connections(few, 20):
            for path in (b"/health", b"/live"):
                probe = ask(few, GET_HEALTH.replace(b"/health", path))
                assert (probe.status, probe.headers["connection"]) == (200, "close")
        for each in busy:
            assert chunks_of(each.answer().body)
        assert ask(few, sized()).status == 200


def test_an_answer_that_is_still_being_read_is_not_cut(few: LiveServer) -> None:
    large = chat_body(max_tokens=2000, ignore_eos=True, logprobs=True, top_logprobs=20, n=2)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect((few.host, few.port))
        slow = RawConnection(sock).send(post(CHAT, large))
        slow.received = sock.recv(1)
        with connections(few, LIMIT - 1) as idle:
            for each in idle:
                assert each.send(GET_HEALTH).answer().status == 200
            assert ask(few, GET_HEALTH).status == 200
            assert len(slow.answer().json["choices"]) == 2


def test_bodies_are_waited_for(few: LiveServer) -> None:
    message = sized()
    with connections(few, LIMIT, message[:-1]) as busy:
        assert ask(few, sized()).status == 503
        assert [each.send(message[-1:]).answer().status for each in busy] == [200] * LIMIT


def test_a_newcomer_that_found_room_in_the_end(few: LiveServer, engine: FakeEngine) -> None:
    """Only what is true when its request comes counts, and it stays."""
    engine.script = Script(token_s=0.01)
    with connections(few, LIMIT, STREAM) as busy, connect(few) as newcomer:
        wait_until(lambda: len(engine.running) == LIMIT)
        busy[0].sock.close()
        wait_until(lambda: len(engine.running) < LIMIT)
        assert [newcomer.send(sized()).answer().status for _ in range(2)] == [200, 200]


def test_which_connections_are_closed_and_when() -> None:
    closed: list[str] = []

    class Transport:
        def __init__(self, name: str) -> None:
            self.abort = lambda: closed.append(name)
            self.is_idle = lambda: name != "unread"

    limit = ConnectionLimit(3)
    names = ("served", "first", "unread", "second", "busy", "gone", "busy too")
    served, first, unread, second, busy, gone, busy_too = (cast(JoinedWrites, Transport(name)) for name in names)
    for transport in (served, first, unread):
        limit.opened(transport)
        limit.set_idle(transport, is_served=transport is served)
    assert limit.has_room()
    limit.opened(second)
    limit.set_idle(second, is_served=False)
    limit.set_idle(first, is_served=False)  # it has said something in the meantime
    assert limit.has_room()
    assert closed == ["second"]
    for transport in (busy, gone):
        limit.opened(transport)
    limit.closed(gone)
    assert limit.has_room()
    assert closed == ["second", "first"]
    limit.opened(busy_too)
    assert not limit.has_room()  # what was sent is to be read first
    limit.set_busy(unread)
    assert limit.has_room()
    assert closed == ["second", "first", "served"]


# Files.


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to", "max_connections"),
    [
        (1024, 20_000, 1280, 1024),
        (4096, 4096, None, 1024),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 1024),
        (1024, 1024, None, 768),
        (256, 1000, 1000, 744),
        (100, 100, None, 50),
    ],
)
def test_connections_are_bounded_by_the_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised_to: int | None, max_connections: int
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert within_file_limit(ServerSettings()).max_connections == max_connections
    assert set_to == ([] if raised_to is None else [(raised_to, hard)])


def test_a_server_with_few_files() -> None:
    """Twice as many connections as files, at once: none of them is refused for want of a file."""
    limited = (
        "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (300, 300)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with program(wrapper=[sys.executable, "-c", limited]) as server:
        ready_line(server)
        port = int(server.url.rpartition(":")[2])
        live = LiveServer(FakeEngine(), "127.0.0.1", port)
        with connections(live, 600), connect(live) as client:
            assert [client.send(GET_HEALTH).answer().status for _ in range(3)] == [200] * 3
        warnings = [record for record in server.log if record.get("level") not in ("info", "debug")]
        assert [each["event"] for each in warnings] == ["few_open_files_allowed"], warnings


def test_a_fault_without_end_is_logged_at_a_bounded_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """As asyncio tells of it when no connection can be accepted."""
    from openai_api.logs import configure_logging

    configure_logging("info")
    loop = asyncio.new_event_loop()
    try:
        for _ in range(5000):
            error = OSError(errno.EMFILE, "Too many open files")
            loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": error})
    finally:
        loop.close()
    assert len(capsys.readouterr().err.splitlines()) == 1
