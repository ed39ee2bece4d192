"""One request's news on the way to whoever reads it: in order, without loss, and bounded.

Knows nothing of the engine. One writer and one reader, both on the event loop.

A reader that has stopped reading does not stop its request. What it has not read is joined, so that
it never takes more than the answer itself, told at once.
"""

import asyncio
from collections import deque

from engine.errors import EngineError
from engine.outputs import RequestOutput, joined

News = RequestOutput | EngineError

MAX_UNREAD = 64


class NewsQueue:
    """Mutable. An error ends the request: it is told after everything that came before it.

    With ``joins_unread`` a reader gets all that is unread at once: one that is told of many steps
    together has no use for each.
    """

    def __init__(self, *, joins_unread: bool = False) -> None:
        self._joins_unread = joins_unread
        self._unread: deque[News] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._unread)

    def put(self, item: News) -> None:
        if len(self._unread) >= MAX_UNREAD:
            self._join()
        self._unread.append(item)
        self._wake()

    def end(self, error: EngineError) -> None:
        """Forget what is unread: it cannot be told."""
        self._unread.clear()
        self._unread.append(error)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> News:
        """The next item, as soon as there is one."""
        while not self._unread:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._joins_unread and len(self._unread) > 1:
            self._join()
        return self._unread.popleft()

    def _join(self) -> None:
        """All at once, not each to the last: the text of a long answer is copied once in so many
        outputs.
        """
        outputs = [item for item in self._unread if isinstance(item, RequestOutput)]
        errors = [item for item in self._unread if isinstance(item, EngineError)]
        self._unread = deque([joined(outputs), *errors[:1]])
