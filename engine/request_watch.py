"""Asks the engine thread what the running requests do, for people who watch.

Owns how often it is asked: whoever asks while an answer is on its way gets that one, so a step is
followed by one answer at most. Knows no request. Event loop.
"""

import asyncio
from collections import abc

from engine.commands import Look
from engine.request_status import RequestStatus

PATIENCE_S = 2.0  # a thread that loads, or has died, answers nobody

Statuses = tuple[RequestStatus, ...]


class RequestWatch:
    """Mutable."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[Statuses] | None = None

    async def look(self, send: abc.Callable[[Look], None]) -> Statuses:
        """Of the requests that have left the queue; none if the engine thread does not answer."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            send(Look(self._tell))
        answer = self._answer
        await asyncio.wait([answer], timeout=PATIENCE_S)  # unlike ``wait_for`` it leaves the answer to the others
        if answer is self._answer:
            self._answer = None
        return answer.result() if answer.done() else ()

    def _tell(self, statuses: Statuses) -> None:
        """One that comes late is as good for whoever asks now."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(statuses)
