"""How many bytes of large request bodies the server holds at once, over all connections.

Owns the count and who may take from it. A small body is free, so that no number of large ones keeps
it out; and one caller has at most half of all, so that none keeps the others out. Knows nothing of
HTTP. Runs on the event loop.
"""

from collections import Counter
from typing import Self

from engine.caller import Caller
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

    def share(self, caller: Caller) -> "BodyShare":
        """The bytes of one request; used in a ``with`` statement."""
        return BodyShare(self, caller.name)

    def hold(self, name: str, num_bytes: int) -> bool:
        """Whether there is room for so many more bytes, which this caller then holds."""
        is_room = (
            self.held_bytes + num_bytes <= self._max_bytes
            and self._held_bytes[name] + num_bytes <= self._max_bytes // 2
        )
        if is_room:
            self._held_bytes[name] += num_bytes
        return is_room

    def give_back(self, name: str, num_bytes: int) -> None:
        """So many bytes are gone."""
        self._held_bytes[name] -= num_bytes
        self._held_bytes += Counter()  # drops the names that hold nothing


class BodyShare:
    """One request's part of the budget, given back at the end of a ``with`` statement.

    Mutable.
    """

    def __init__(self, budget: BodyBudget, name: str) -> None:
        self._budget = budget
        self._name = name
        self._num_bytes = 0
        self._counted_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.give_back()

    @property
    def is_large(self) -> bool:
        """Whether the body is no small one."""
        return self._num_bytes > self._budget.free_bytes

    def take(self, num_bytes: int) -> bool:
        """Whether there is room for so many bytes more, which have arrived.

        Where there is none, all that was taken before is given back.
        """
        self._num_bytes += num_bytes
        if not self.is_large:
            return True
        uncounted_bytes = self._num_bytes - self._counted_bytes
        if not self._budget.hold(self._name, uncounted_bytes):
            self.give_back()
            return False
        self._counted_bytes += uncounted_bytes
        return True

    def give_back(self) -> None:
        """The bytes are gone."""
        if self._counted_bytes:
            self._budget.give_back(self._name, self._counted_bytes)
            self._counted_bytes = 0
