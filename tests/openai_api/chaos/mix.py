"""The attackers: each way to use or abuse a connection is one function, and a worker draws them by weight.

Owns how requests are sent, stalled and dropped; what they ask for is in ``bodies``. Every answer goes to the tally.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.openai_api.chaos import bodies
from tests.openai_api.chaos.bodies import COMPLETIONS, DETOKENIZE, TOKENIZE
from tests.openai_api.chaos.servers import Target
from tests.openai_api.chaos.tally import Tally
from tests.openai_api.chaos.wire import JSON_TYPE, Connection, NoAnswerError, head, message

NUM_CROWD = 24
SMALL_BUFFER = 2_048
GET_PATHS = ("/health", "/live", "/metrics", "/v1/models", "/v1/capabilities", "/openapi.json", "/", "/nowhere")
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


@dataclass(frozen=True)
class Attacker:
    """``longest_pause_s``: of clients that stall, in seconds."""

    target: Target
    rng: random.Random
    tally: Tally
    longest_pause_s: float

    def connect(self, receive_buffer: int | None = None) -> Awaitable[Connection]:
        return Connection.open(self.target.address, receive_buffer=receive_buffer)

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, self.longest_pause_s))

    async def ask(self, name: str, request: bytes, *expected: int) -> None:
        async with await self.connect() as connection:
            await connection.send(request)
            self.tally.judge(name, await connection.answer(), *expected)


async def whole(a: Attacker) -> None:
    body = bodies.ordinary(a.rng, a.target)
    await a.ask("whole", message("POST", body.path, body.encoded()), 200)


async def streamed(a: Attacker) -> None:
    body = bodies.ordinary(a.rng, a.target)
    async with await a.connect() as connection:
        await connection.send(message("POST", body.path, body.encoded(stream=True)))
        a.tally.judge_stream("streamed", await connection.answer(), 200)


async def extreme(a: Attacker) -> None:
    body, streams = bodies.extreme(a.rng, a.target), a.rng.random() < 0.3
    async with await a.connect() as connection:
        await connection.send(message("POST", body.path, body.encoded(stream=streams)))
        answer = await connection.answer()
        (a.tally.judge_stream if streams else a.tally.judge)("extreme", answer, 200, 400)


async def long_prompt(a: Attacker) -> None:
    body = bodies.long(a.rng, a.target)
    await a.ask("long prompt", message("POST", body.path, body.encoded()), 200)


async def leave_a_stream(a: Attacker) -> None:
    """After some events, with a farewell or with a reset."""
    body = bodies.endless(a.rng, a.target)
    async with await a.connect() as connection:
        await connection.send(message("POST", body.path, body.encoded(stream=True)))
        num_events, wanted = 0, a.rng.randint(1, 8)
        while num_events < wanted and (data := await _received(connection)):
            num_events += data.count(b"data: ")
        if a.rng.random() < 0.5:
            connection.reset_on_close()


async def drop_a_request(a: Attacker) -> None:
    """After its head, within its body, or while it waits, is prefilled or decodes."""
    body = bodies.endless(a.rng, a.target)
    request = message("POST", body.path, body.encoded(stream=a.rng.random() < 0.5))
    body_at = request.index(b"\r\n\r\n") + 4
    upto = a.rng.choice((a.rng.randrange(body_at), body_at, (body_at + len(request)) // 2, len(request), len(request)))
    async with await a.connect() as connection:
        await connection.send(request[:upto])
        await asyncio.sleep(a.rng.choice((0, 0.01, 0.1, 0.5)))
        if a.rng.random() < 0.5:
            connection.reset_on_close()


async def stall(a: Attacker) -> None:
    """Ask for much, read nothing for a while, then read on or go."""
    body = bodies.wide(a.rng, a.target)
    async with await a.connect(SMALL_BUFFER) as connection:
        await connection.send(message("POST", body.path, body.encoded(stream=a.rng.random() < 0.8)))
        await a.pause()
        if a.rng.random() < 0.5:
            for _ in range(20):
                await _received(connection)


async def malformed(a: Attacker) -> None:
    path = a.rng.choice((bodies.CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE))
    await a.ask("malformed", message("POST", path, bodies.malformed(a.rng, a.target)), 200, 400, 404)


async def huge(a: Attacker) -> None:
    """Near and over the limit. One of three goes before it is answered, as a client with a short time-out does."""
    path, body = bodies.huge(a.rng.choice(bodies.HUGE), a.rng.choice(bodies.HUGE_SIZES), a.target)
    async with await a.connect() as connection:
        sending = asyncio.create_task(connection.send(message("POST", path, body)))
        try:
            if a.rng.random() < 0.33:
                await a.pause()
            else:
                a.tally.judge("huge", await connection.answer(), 200, 400, 413)
        finally:
            sending.cancel()
            await asyncio.wait([sending])


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
        await connection.send(b"0\r\nX-A: b\r\nContent-Length: 3\r\nAuthorization: Bearer x\r\n\r\n")
        a.tally.judge("trailers", await connection.answer(), 200)


async def pipeline(a: Attacker) -> None:
    """Several requests at once on one connection; the answers come in order."""
    asked = [bodies.ordinary(a.rng, a.target) for _ in range(3)]
    async with await a.connect() as connection:
        await connection.send(b"".join(message("POST", body.path, body.encoded()) for body in asked))
        for _ in asked:
            a.tally.judge("pipeline", await connection.answer(), 200)


async def tokenize_and_back(a: Attacker) -> None:
    ids = bodies.token_ids(a.rng, a.target, a.rng.randint(1, 500))
    await a.ask("detokenize", message("POST", DETOKENIZE, bodies.Body(DETOKENIZE, {"tokens": ids}).encoded()), 200)
    text = bodies.Body(TOKENIZE, {"prompt": bodies.text(a.rng, 100), "return_token_strs": True})
    await a.ask("tokenize", message("POST", TOKENIZE, text.encoded()), 200)


async def look_around(a: Attacker) -> None:
    """Kept alive, as monitors and browsers do."""
    async with await a.connect() as connection:
        for path in a.rng.sample(GET_PATHS, k=3):
            await connection.send(message("GET", path))
            a.tally.judge("look", await connection.answer(), 404 if path == "/nowhere" else 200)


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


async def _received(connection: Connection) -> bytes:
    """Some bytes of an answer; none at its end, or when the server has hung up."""
    try:
        async with asyncio.timeout(60):
            return await connection.reader.read(4_096)
    except OSError:
        return b""


MIX: Mapping[Callable[[Attacker], Awaitable[None]], int] = {
    whole: 14,
    streamed: 14,
    extreme: 14,
    leave_a_stream: 8,
    drop_a_request: 12,
    stall: 4,
    malformed: 10,
    huge: 2,
    long_prompt: 1,
    not_http: 6,
    odd_encoding: 1,
    offer_upgrade: 2,
    chunked_with_trailers: 3,
    pipeline: 2,
    tokenize_and_back: 4,
    look_around: 5,
    come_from_elsewhere: 2,
    stay_idle: 3,
    crowd: 1,
}


async def attack_for_ever(a: Attacker) -> None:
    """One worker, until it is cancelled. What the server should not have done is in the tally."""
    ways, weights = list(MIX), list(MIX.values())
    while True:
        (way,) = a.rng.choices(ways, weights)
        try:
            await way(a)
        except (NoAnswerError, OSError) as error:
            a.tally.problem(way.__name__, f"{type(error).__name__} {error}")
            await asyncio.sleep(0.1)  # a server that is gone answers nobody
