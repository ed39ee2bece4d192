"""The mix: how often each kind of attack comes, and the loop of a worker that draws from it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from tests.openai_api.chaos import request_attacks, wire_attacks
from tests.openai_api.chaos.attacker import Attacker
from tests.openai_api.chaos.wire import NoAnswerError

MIX: Mapping[Callable[[Attacker], Awaitable[None]], int] = {
    request_attacks.whole: 14,
    request_attacks.streamed: 14,
    request_attacks.extreme: 14,
    request_attacks.leave_a_stream: 8,
    request_attacks.drop_a_request: 12,
    request_attacks.stall: 4,
    request_attacks.malformed: 10,
    request_attacks.huge: 2,
    request_attacks.long_prompt: 1,
    wire_attacks.not_http: 6,
    wire_attacks.odd_encoding: 1,
    wire_attacks.offer_upgrade: 2,
    wire_attacks.chunked_with_trailers: 3,
    wire_attacks.slow_body: 2,
    wire_attacks.pipeline: 2,
    request_attacks.tokenize_and_back: 4,
    request_attacks.look_around: 5,
    wire_attacks.come_from_elsewhere: 2,
    wire_attacks.stay_idle: 3,
    wire_attacks.crowd: 1,
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
