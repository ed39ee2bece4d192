"""Attacks with requests that are HTTP: good, bad and huge ones, read whole, stalled, or left in any
phase.
"""

import asyncio

from tests.openai_api.chaos import bodies
from tests.openai_api.chaos.attacker import Attacker, received
from tests.openai_api.chaos.bodies import CHAT, COMPLETIONS, DETOKENIZE, TOKENIZE
from tests.openai_api.chaos.wire import message

SMALL_BUFFER = 2_048
GET_PATHS = ("/health", "/live", "/metrics", "/v1/models", "/v1/capabilities", "/openapi.json", "/", "/nowhere")


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
        while num_events < wanted and (data := await received(connection)):
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
                await received(connection)


async def malformed(a: Attacker) -> None:
    path = a.rng.choice((CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE))
    await a.ask("malformed", message("POST", path, bodies.malformed(a.rng, a.target)), 200, 400, 404)


async def huge(a: Attacker) -> None:
    """Near and over the limit.

    One of three goes before it is answered, as a client with a short time-out does.
    """
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
