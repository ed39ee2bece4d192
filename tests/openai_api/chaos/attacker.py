"""What every attacker has: the target, a generator of its own, and the tally.

The attacks are functions of it.
"""

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import dataclass

from tests.openai_api.chaos.servers import Target
from tests.openai_api.chaos.tally import Tally
from tests.openai_api.chaos.wire import Connection


@dataclass(frozen=True)
class Attacker:
    """``longest_pause_s``: of clients that stall, in seconds. ``source`` is its address."""

    target: Target
    source: str
    rng: random.Random
    tally: Tally
    longest_pause_s: float

    def connect(self, receive_buffer: int | None = None) -> Awaitable[Connection]:
        return Connection.open(self.target.address, source=self.source, receive_buffer=receive_buffer)

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, self.longest_pause_s))

    async def ask(self, name: str, request: bytes, *expected: int) -> None:
        async with await self.connect() as connection:
            await connection.send(request)
            self.tally.judge(name, await connection.answer(), *expected)


async def received(connection: Connection) -> bytes:
    """Some bytes of an answer; none at its end, or when the server has hung up."""
    try:
        async with asyncio.timeout(60):
            return await connection.reader.read(4_096)
    except OSError:
        return b""
