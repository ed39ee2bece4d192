"""Rows into answers: many at once, written in the order of the rows.

Owns how many are on their way, and that one slow row holds up the writing and not the work. Knows
nothing of files, of shapes or of HTTP. Event loop.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

R = TypeVar("R")
A = TypeVar("A")

AHEAD = 16  # answers that may wait for an earlier row, for each row that is computed at once


async def in_order(
    rows: Iterable[R], answer: Callable[[R], Awaitable[A]], *, num_at_once: int
) -> AsyncGenerator[A, None]:
    """``answer`` of each row, in their order; ``rows`` is read no further than is needed.

    Closed early, or if an answer raises, all that are on their way are cancelled.
    """
    gate = asyncio.Semaphore(num_at_once)
    pending: deque[asyncio.Task[A]] = deque()

    async def gated(row: R) -> A:
        async with gate:
            return await answer(row)

    try:
        for row in rows:
            pending.append(asyncio.create_task(gated(row)))
            if len(pending) % num_at_once == 0:
                await asyncio.sleep(0)  # let them begin
            while pending and (pending[0].done() or len(pending) >= num_at_once * AHEAD):
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
