"""How many bytes of large request bodies the server holds at once, over all connections.

Owns the count and who may take from it. A small body is free, so that no number of large ones keeps it out; and one caller
has at most half of all, so that none keeps the others out. Knows nothing of HTTP. Runs on the event loop.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from engine.caller import Caller
from openai_api.errors import ApiError, retry_after
from openai_api.settings import ServerSettings


class BodyBudget:
    """Mutable: it knows the bytes that each caller holds now."""

    def __init__(self, settings: ServerSettings) -> None:
        self.free_bytes = settings.heavy_bytes
        self._max_bytes = settings.max_bytes_of_bodies
        self._held_bytes: Counter[str] = Counter()

    @property
    def held_bytes(self) -> int:
        """All callers' together, without small bodies."""
        return self._held_bytes.total()

    @contextmanager
    def share(self, caller: Caller) -> "Iterator[BodyShare]":
        """The bytes of one request, which are given back at the end, however it comes."""
        share = BodyShare(self, caller.name)
        try:
            yield share
        finally:
            self._held_bytes[caller.name] -= share.counted_bytes
            self._held_bytes += Counter()  # drops the names that hold nothing

    def hold(self, name: str, num_bytes: int) -> None:
        """Raises: ApiError 503 if there is no room for so many more bytes."""
        if self.held_bytes + num_bytes > self._max_bytes or self._held_bytes[name] + num_bytes > self._max_bytes // 2:
            message = "The server holds as many bytes of request bodies as it can; try again."
            raise ApiError(503, message, code="busy", headers={**retry_after(1), "Connection": "close"})
        self._held_bytes[name] += num_bytes


class BodyShare:
    """One request's part of the budget. Mutable."""

    def __init__(self, budget: BodyBudget, name: str) -> None:
        self._budget = budget
        self._name = name
        self._num_bytes = 0
        self.counted_bytes = 0

    @property
    def is_large(self) -> bool:
        """Whether the body is no small one."""
        return self.counted_bytes > 0

    def take(self, num_bytes: int) -> None:
        """So many bytes have arrived.

        Raises:
            ApiError: 503, there is no room for them.
        """
        self._num_bytes += num_bytes
        if self._num_bytes > self._budget.free_bytes:
            uncounted_bytes = self._num_bytes - self.counted_bytes
            self._budget.hold(self._name, uncounted_bytes)
            self.counted_bytes += uncounted_bytes
