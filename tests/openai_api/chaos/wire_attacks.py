"""Attacks on the edge of the network: what is not HTTP, or not as one is used to it, and
connections that say nothing.
"""

import asyncio
from collections.abc import Mapping

from tests.openai_api.chaos import bodies
from tests.openai_api.chaos.attacker import Attacker
from tests.openai_api.chaos.bodies import TOKENIZE
from tests.openai_api.chaos.wire import JSON_TYPE, head, message

NUM_CROWD = 24
FOREIGN: tuple[Mapping[str, str], ...] = (
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example:80"},
    {"Origin": "http://evil.example"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
)
# Answered with 4xx or hung up on.
NOT_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: line\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 4_000 + b"\r\n",
)
ODD_ENCODINGS = ("gzip, chunked", "identity", "chunked, chunked", "xchunked", "chunked, gzip")


async def not_http(a: Attacker) -> None:
    """Garbage: an error in the contract's form, or the end of the connection."""
    garbage = a.rng.choice((*NOT_HTTP, a.rng.randbytes(200) + b"\r\n\r\n"))
    async with await a.connect() as connection:
        await connection.send(garbage)
        answer = await connection.answer()
        if answer.status != 0:
            a.tally.judge("not HTTP", answer)


async def odd_encoding(a: Attacker) -> None:
    """Never a closed connection without an answer."""
    fields = {"Host": "localhost", **JSON_TYPE, "Transfer-Encoding": a.rng.choice(ODD_ENCODINGS)}
    await a.ask("odd encoding", head("POST", TOKENIZE, fields) + b'd\r\n{"prompt":"a"}\r\n0\r\n\r\n', 200, 400, 501)


async def offer_upgrade(a: Attacker) -> None:
    """As Java's client and ``curl --http2`` do; the offer is ignored."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    body = bodies.ordinary(a.rng, a.target)
    await a.ask("upgrade offer", message("POST", body.path, body.encoded(), offer), 200)


async def chunked_with_trailers(a: Attacker) -> None:
    """In pieces of a few bytes, and trailer fields that mean nothing."""
    body, size = bodies.ordinary(a.rng, a.target), a.rng.randint(1, 40)
    encoded = body.encoded()
    pieces = [encoded[i : i + size] for i in range(0, len(encoded), size)]
    fields = {"Host": "localhost", **JSON_TYPE, "Transfer-Encoding": "chunked", "Trailer": "X-A"}
    async with await a.connect() as connection:
        await connection.send(head("POST", body.path, fields))
        await connection.send(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
        await connection.send(b"0\r\nX-A: b\r\nAuthorization: Bearer x\r\n\r\n")
        a.tally.judge("trailers", await connection.answer(), 200)


async def slow_body(a: Attacker) -> None:
    """In two halves, with a pause that may be longer than the deadline."""
    body = bodies.ordinary(a.rng, a.target)
    request = message("POST", body.path, body.encoded(), {"Expect": "100-continue"})
    async with await a.connect() as connection:
        await connection.send(request[:-20])
        await a.pause()
        await connection.send(request[-20:])
        a.tally.judge("slow body", await connection.answer(), 200, 408)


async def pipeline(a: Attacker) -> None:
    """Several requests at once on one connection; the answers come in order."""
    asked = [bodies.ordinary(a.rng, a.target) for _ in range(3)]
    async with await a.connect() as connection:
        await connection.send(b"".join(message("POST", body.path, body.encoded()) for body in asked))
        for _ in asked:
            a.tally.judge("pipeline", await connection.answer(), 200)


async def come_from_elsewhere(a: Attacker) -> None:
    body = bodies.ordinary(a.rng, a.target)
    await a.ask("foreign", message("POST", body.path, body.encoded(), a.rng.choice(FOREIGN)), 400, 403)


async def stay_idle(a: Attacker) -> None:
    """Connected, perhaps with the beginning of a head."""
    async with await a.connect() as connection:
        await connection.send(a.rng.choice((b"", b"P", b"POST /v1/chat/completions HTTP/1.1\r\nHo")))
        await a.pause()


async def crowd(a: Attacker) -> None:
    """Many connections at once that say nothing."""
    opened = await asyncio.gather(*(a.connect() for _ in range(NUM_CROWD)), return_exceptions=True)
    for connection in opened:
        if isinstance(connection, BaseException):
            a.tally.problem("crowd", type(connection).__name__)
        else:
            connection.reset_on_close()
            connection.writer.close()
