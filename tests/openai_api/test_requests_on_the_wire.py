"""Requests as odd clients write them: each is answered, in its place, and none as another than it is."""

import http.client
import logging
import time
from collections.abc import Iterator

import pytest

from openai_api.settings import ServerSettings
from openai_api.transport.http_limits import GuardedProtocol
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import (
    LiveServer,
    SharedServer,
    chat_body,
    chunks_of,
    events_of,
    shared_server,
    wait_until,
)
from tests.openai_api.raw_http import BODY, GET_HEALTH, JSON_HEAD, ask, chunked, connect, post, sized

CHAT = "/v1/chat/completions"
KEY = "k" * 20
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
OFFERS = [
    H2C,
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    b"Connection: keep-alive\r\nConnection:  uPGRADE \r\nUPGRADE: a/1, b\r\n",
    b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
]


@pytest.fixture(scope="module")
def server_with_key() -> Iterator[SharedServer]:
    with shared_server(ServerSettings(api_keys=(KEY,))) as server:
        yield server


# Offers of other protocols.


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_is_ignored_and_the_request_answered(live: LiveServer, offer: bytes) -> None:
    """Body in any form and in any number of segments; what follows on the connection is answered too."""
    head = JSON_HEAD + offer
    with connect(live) as connection:
        for message in (sized(head=head), chunked(head=head)):
            whole_head = message.index(b"\r\n\r\n") + 4
            for segments in ([message], [message[:whole_head], message[whole_head:]], [message[:9], message[9:]]):
                answer = connection.send(*segments).answer()
                assert (answer.status, answer.json["count"]) == (200, 2)
        connection.send(sized(head=head) * 2 + GET_HEALTH)
        assert [connection.answer().status for _ in range(3)] == [200, 200, 200]


def test_many_offers_in_a_row(live: LiveServer) -> None:
    """None of them nests in another."""
    request = GET_HEALTH[:-2] + H2C + b"\r\n"
    with connect(live) as connection:
        connection.send(request * 300)
        assert {connection.answer().status for _ in range(300)} == {200}


def test_the_offer_of_a_client_that_asks_to_close(live: LiveServer) -> None:
    for request in (GET_HEALTH.replace(b"/1.1", b"/1.0"), GET_HEALTH[:-2] + b"Connection: close\r\n\r\n"):
        with connect(live) as connection:
            assert connection.send(request[:-2] + H2C + b"\r\n" + GET_HEALTH).answer().status == 200
            assert connection.is_closed()


def test_a_head_with_an_offer_is_still_checked(live: LiveServer) -> None:
    answer = ask(live, JSON_HEAD + H2C + b"Transfer-Encoding: gzip\r\n\r\n")
    assert (answer.status, answer.error["code"]) == (400, "invalid_http")


@pytest.mark.parametrize("target", [b"example.com:443", b"127.0.0.1:80"])
def test_connect_is_refused(live: LiveServer, target: bytes) -> None:
    with connect(live) as connection:
        answer = connection.send(b"CONNECT %s HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health" % target).answer()
        assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
        assert connection.is_closed()


# What is no request, and where the answer to it stands.

BODIES_THAT_ARE_NONE = [
    b"3\nabc",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b"e\r\n%s!\r\n0\r\n\r\n" % BODY,
    b"ffffffffffffffffff\r\n",
    b"\r\n",
    b"e\r\n%s\r\n0\r\nContent-Length: 3\r\n\r\n" % BODY,
    b"e\r\n%s\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n" % BODY,
    b"e\r\n%s\r\n0\r\nno colon\r\n\r\n" % BODY,
]
HEADERS_THAT_ARE_NONE = [
    *(
        b"Transfer-Encoding: " + coding
        for coding in (
            b"gzip",
            b"identity",
            b"chunked, gzip",
            b"gzip, chunked",
            b"chunked, chunked",
            b"xchunked",
            b"chunked;q=1",
            b'"chunked"',
            b"",
            b"\x0bchunked",
            b"gzip\r\nTransfer-Encoding: chunked",
            b"chunked\r\nTransfer-Encoding: chunked",
            b"chunked\r\nContent-Length: 14",
            b"chunked\r\nTransfer-Encoding: identity",
        )
    ),
    b"Content-Length: 14\r\nTransfer-Encoding: chunked",
    b"Content-Length: 14\r\nContent-Length: 14",
    b"Content-Length: 14\r\nContent-Length: 15",
    b"Content-Length: -1",
    b"Content-Length: +5",
    b"Content-Length: 0x5",
    b"Content-Length: 1_4",
    b"Content-Length: 14, 14",
    b"Content-Length: ",
    b"Content-Length : 14",
    b"x: y\r\n folded: z",
    b"x: \0",
    b"x: a\rb",
    b"x: a\nb: c",
    b": y",
    b"no colon",
]


def assert_refused(live: LiveServer, *segments: bytes) -> None:
    """400 in our form, then nothing more: what follows could be part of what was refused."""
    with connect(live) as connection:
        answer = connection.send(*segments).answer()
        assert (answer.status, answer.error["code"]) == (400, "invalid_http")
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-request-id"]
        assert connection.is_closed()


@pytest.mark.parametrize("header", HEADERS_THAT_ARE_NONE)
def test_headers_that_are_none(live: LiveServer, header: bytes) -> None:
    body = b"e\r\n%s\r\n0\r\n\r\n" % BODY
    assert_refused(live, JSON_HEAD + header + b"\r\n\r\n" + body + GET_HEALTH)
    assert_refused(live, JSON_HEAD + header + b"\r\n\r\n", body + GET_HEALTH)


@pytest.mark.parametrize("body", BODIES_THAT_ARE_NONE)
def test_bodies_that_are_none(live: LiveServer, body: bytes) -> None:
    head = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    assert_refused(live, head + body + GET_HEALTH)
    assert_refused(live, head, body + GET_HEALTH)


@pytest.mark.parametrize(
    "line", [b"GET /health", b"GET /health HTTP/0.9", b"GET /health HTTP/2.0", b"GET /health HTTP/1.2"]
)
def test_request_lines_that_are_none(live: LiveServer, line: bytes) -> None:
    assert_refused(live, line + b"\r\nHost: localhost\r\n\r\n" + GET_HEALTH)


def test_http2_without_an_offer(live: LiveServer) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert_refused(live, preface + b"\0\0\x12\4\0\0\0\0\0")


def test_what_is_no_request_waits_for_the_answers_before_it(live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(token_s=0.005)
    gzip = JSON_HEAD + b"Transfer-Encoding: gzip\r\n\r\n"
    bad_chunk = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\nx"
    for garbage in (b"garbage\r\n\r\n", gzip, bad_chunk):
        with connect(live) as connection:
            connection.send(post(CHAT, chat_body(stream=True)) + GET_HEALTH + garbage + GET_HEALTH)
            assert chunks_of(connection.answer().body)
            assert connection.answer().json == {"status": "ready"}
            assert connection.answer().error["code"] == "invalid_http"
            assert connection.is_closed()
    assert not engine.aborted


def test_after_a_refusal_nothing_is_read(
    live: LiveServer, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script = Script(prefill_s=0.3)
    with connect(live) as connection:
        connection.send(post(CHAT, chat_body()), b"garbage\r\n\r\n", b"more\r\n\r\n", GET_HEALTH)
        assert [connection.answer().status for _ in range(2)] == [200, 400]
        assert connection.is_closed()
    assert [record.getMessage() for record in caplog.records].count("request_refused") == 1


def test_requests_in_advance_wait_as_bytes(
    live: LiveServer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request of 30 bytes takes a hundred times as much when it is parsed: only a few are."""
    num_parsed: list[int] = []
    take = GuardedProtocol.on_headers_complete

    def count(self: GuardedProtocol) -> None:
        take(self)
        num_parsed.append(len(self.pipeline))

    monkeypatch.setattr(GuardedProtocol, "on_headers_complete", count)
    engine.script = Script(prefill_s=0.2)
    with connect(live) as connection:
        connection.send(post(CHAT, chat_body()), GET_HEALTH * 600)
        assert {connection.answer().status for _ in range(601)} == {200}
    assert len(num_parsed) == 601
    assert max(num_parsed) < 100


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_with_requests_in_advance(live: LiveServer, engine: FakeEngine, is_stream: bool) -> None:
    engine.script = Script(token_s=0.05, text="x" * 400)
    with connect(live) as connection:
        connection.send(post(CHAT, chat_body(stream=is_stream)))
        wait_until(lambda: engine.running)
        connection.send(GET_HEALTH * 2, b"")
    wait_until(lambda: engine.aborted)


def test_much_in_advance_is_not_taken(live: LiveServer, engine: FakeEngine) -> None:
    """The server stops reading, and goes on when it has answered."""
    engine.script = Script(prefill_s=0.4)
    requests = GET_HEALTH.replace(b"\r\n\r\n", b"\r\nx: %s\r\n\r\n" % (b"y" * 16_000)) * 500
    with connect(live) as connection:
        connection.send(post(CHAT, chat_body()))
        wait_until(lambda: engine.running)
        connection.send(GET_HEALTH * 2, b"")
        connection.sock.setblocking(False)
        num_sent = connection.sock.send(requests)
        time.sleep(0.1)
        while num_sent < len(requests):
            try:
                num_sent += connection.sock.send(requests[num_sent:])
            except BlockingIOError:
                break
        assert num_sent < len(requests)
        connection.sock.settimeout(10)
        assert [connection.answer().status for _ in range(11)] == [200] * 11


def test_what_is_refused_is_logged_without_its_text(live: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(live, b"SECRET / HTTP/1.1\r\n\r\n").status == 400
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert (record.getMessage(), record.__dict__["fields"]) == (
        "request_refused",
        {"status": 400, "code": "invalid_http"},
    )


def test_a_bad_end_of_a_body_that_is_answered_already(live: LiveServer) -> None:
    """There is one answer to a request."""
    with connect(live) as connection:
        head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert connection.send(head).answer().status == 404
        assert connection.send(b"x\r\n").is_closed()


def test_a_refused_client_that_goes_on_sending_reads_the_answer(live: LiveServer) -> None:
    """Closing with bytes unread would reset the connection, and the answer would be lost with it."""
    with connect(live) as connection:
        connection.send(b"garbage\r\n\r\n", *[b"x" * 100_000] * 3)
        assert connection.answer().status == 400


# Trailers.


def test_a_key_in_a_trailer_opens_nothing(server_with_key: SharedServer, engine: FakeEngine) -> None:
    live = server_with_key.use(engine)
    key = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
    assert ask(live, chunked(trailers=key)).status == 401
    assert ask(live, chunked(trailers=b"x: y\r\n" + key)).status == 401
    assert ask(live, chunked(head=JSON_HEAD + key)).status == 200


@pytest.mark.parametrize(
    "field",
    [b"Host: evil.example", b"Origin: http://evil.example", b"Content-Type: text/plain", b"Content-Encoding: gzip"],
)
def test_trailers_are_dropped(live: LiveServer, field: bytes) -> None:
    """Also in a segment of their own, when the request has long been running."""
    message = chunked(trailers=field + b"\r\nx-request-id: mine\r\nExpect: 100-continue\r\n")
    at = message.index(field)
    with connect(live) as connection:
        for segments in ([message], [message[:at], message[at:]], [message[: at + 3], message[at + 3 :]]):
            answer = connection.send(*segments).answer()
            assert answer.status == 200
            assert answer.headers["x-request-id"] != "mine"


def test_trailers_are_part_of_no_other_request(server_with_key: SharedServer, engine: FakeEngine) -> None:
    live = server_with_key.use(engine)
    key = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
    with connect(live) as connection:
        connection.send(chunked(head=JSON_HEAD + key, trailers=key) + sized())
        assert [connection.answer().status, connection.answer().status] == [200, 401]


@pytest.mark.parametrize("trailers", [b"x: %s\r\n" % (b"y" * 20_000), b"x: y\r\n" * 4000])
def test_trailers_are_bounded(live: LiveServer, trailers: bytes) -> None:
    answer = ask(live, chunked(trailers=trailers))
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")


def test_what_surrounds_chunks_is_bounded(live: LiveServer) -> None:
    head = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for endless in (b"1;x=" + b"y" * 9000, b"0\r\nx: " + b"y" * 9000):
        answer = ask(live, head, endless, b"y" * 9000)
        assert (answer.status, answer.error["code"]) == (431, "headers_too_large")


# HTTP/1.0, HEAD, expectations, hosts.


@pytest.mark.parametrize("connection_header", [[], [b"Connection: keep-alive"], [b"Connection: close"]])
def test_http_1_0_gets_no_chunks(live: LiveServer, connection_header: list[bytes]) -> None:
    for path, is_whole in ((CHAT, True), (CHAT, False), ("/metrics", True)):
        body = chat_body(stream=not is_whole)
        request = post(path, body, *connection_header, version=b"1.0")
        if path == "/metrics":
            request = b"\r\n".join([b"GET /metrics HTTP/1.0", b"Host: localhost", *connection_header, b"", b""])
        with connect(live) as connection:
            answer = connection.send(request).answer()
            assert answer.status == 200
            assert "transfer-encoding" not in answer.headers
            assert ("content-length" in answer.headers) == is_whole
            assert answer.body.startswith(b"#" if path == "/metrics" else b"{" if is_whole else b"data: {")
            assert is_whole or events_of(answer.body)[-1] == "[DONE]"
            assert connection.is_closed()


def test_http_1_0_gets_no_interim_answer(live: LiveServer) -> None:
    assert ask(live, sized(head=JSON_HEAD.replace(b"/1.1", b"/1.0") + b"Expect: 100-continue\r\n")).status == 200


def test_http_1_0_knows_no_chunks(live: LiveServer) -> None:
    assert_refused(live, chunked(head=JSON_HEAD.replace(b"/1.1", b"/1.0")))


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_answer_to_head_has_no_body(live: LiveServer, version: bytes) -> None:
    """Whatever the answer is, one that is refused before the application sees it too."""
    for target, ending in ((b"/health", b""), (b"/nowhere", b""), (b"/tokenize", b""), (b"/health", b"no colon\r\n")):
        with connect(live) as connection:
            connection.send(
                b"HEAD %s HTTP/%s\r\nHost: localhost\r\nConnection: close\r\n%s\r\n" % (target, version, ending)
            )
            assert connection.answer(to_head=True).status in {200, 400, 404, 405}
            assert connection.rest() == b""


def test_the_answer_to_head_ends_where_the_next_begins(live: LiveServer) -> None:
    with connect(live) as connection:
        connection.send(GET_HEALTH.replace(b"GET", b"HEAD") + GET_HEALTH)
        assert connection.answer(to_head=True).status in {200, 405}
        assert connection.answer().json == {"status": "ready"}


def test_a_client_that_waits_before_its_body(live: LiveServer) -> None:
    head = JSON_HEAD + b"Content-Length: %d\r\nExpect: 100-Continue\r\n\r\n" % len(BODY)
    with connect(live) as connection:
        assert connection.send(head).answer(to_head=True).status == 100
        assert connection.send(BODY).answer().status == 200


def test_an_unknown_expectation_is_ignored(live: LiveServer) -> None:
    assert ask(live, sized(head=JSON_HEAD + b"Expect: x-miracle\r\n")).status == 200


def test_a_body_too_large_is_not_waited_for(live: LiveServer) -> None:
    head = JSON_HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    assert ask(live, head).status == 413


def test_a_probe_without_a_host_comes_to_the_application(live: LiveServer) -> None:
    assert ask(live, b"GET /health HTTP/1.0\r\n\r\n").status in {200, 403}


def test_a_client_that_has_said_all_is_answered(live: LiveServer) -> None:
    """It closes its side behind its request, as ``nc -N`` does."""
    for request in (GET_HEALTH, b"garbage\r\n\r\n"):
        with connect(live) as connection:
            connection.send(request).sock.shutdown(1)
            assert connection.answer().status in {200, 400}


def test_the_standard_library_reads_all_of_this(live: LiveServer) -> None:
    client = http.client.HTTPConnection(live.host, live.port, timeout=10)
    for _ in range(2):
        client.request("POST", "/tokenize", BODY, {"Content-Type": "application/json"})
        answer = client.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
    client.close()
