"""What a connection waits for from its client, and for how long.

Owns the one deadline of reading. Knows no HTTP beyond the names of a request's parts. On the event
loop.
"""

import asyncio
import enum
from collections.abc import Callable

from openai_api.settings import ServerSettings

# After this time beyond the body's deadline the application has had its chance to answer 408.
BODY_GRACE_S = 1.0


class Wait(enum.Enum):
    """What a connection waits for. Blank lines are no part of a request."""

    FIRST_REQUEST = "the first byte of the first request"
    NEXT_REQUEST = "the first byte of another request"
    HEAD = "the rest of the request line and the headers"
    BODY = "the rest of the body and its trailers"


class ReadDeadline:
    """The one deadline of a connection; mutable.

    It belongs to what the connection waits for, so bytes that come one at a time do not put it off.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: ServerSettings, *, on_late: Callable[[Wait], None]
    ) -> None:
        self._loop = loop
        self._on_late = on_late
        self._allowed_s = {
            Wait.FIRST_REQUEST: settings.header_timeout_s,
            Wait.NEXT_REQUEST: settings.idle_timeout_s,
            Wait.HEAD: settings.header_timeout_s,
            Wait.BODY: settings.body_timeout_s + BODY_GRACE_S,
        }
        self._wait: Wait | None = None
        self._timer: asyncio.TimerHandle | None = None

    def wait_for(self, wait: Wait | None) -> None:
        """Count from now if ``wait`` is news; ``None`` waits for nothing."""
        if wait is self._wait:
            return
        self._wait = wait
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if wait is None else self._loop.call_later(self._allowed_s[wait], self._on_late, wait)
