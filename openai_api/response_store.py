"""The responses that are kept: what is kept of one, and the store that forgets with the process.

Owns who loses what when the room is used up: the caller that holds the most bytes, what it has used
least recently. A caller finds its own responses only. Knows no HTTP; ``response_database`` keeps
them on disk. Runs on the event loop.
"""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """A response could not be kept, or not be looked up. The text is one line without the response."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """Attributes:
    response: its JSON, as it was answered.
    items: the JSON of a list: what it was made from, the oldest item first, without instructions.
    """

    response: bytes
    items: bytes

    @property
    def num_bytes(self) -> int:
        """Of both."""
        return len(self.response) + len(self.items)


class ResponseStore(Protocol):
    """``owner`` is as ``app_state.owner_of`` has it. Called on the event loop."""

    async def put(self, owner: str, response_id: str, stored: StoredResponse) -> None:
        """Keep it, and forget others for it.

        Raises:
            StoreError: it is larger than all room, or cannot be written.
        """

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """Raises: StoreError, it cannot be read."""

    async def delete(self, owner: str, response_id: str) -> bool:
        """Whether it was there. Raises: StoreError, it cannot be removed."""

    async def close(self) -> None:
        """Write what is left to be written."""


class MemoryStore:
    """A ``ResponseStore`` of at most so many responses and bytes. Mutable."""

    def __init__(self, *, max_responses: int, max_bytes: int) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._by_owner: defaultdict[str, OrderedDict[str, StoredResponse]] = defaultdict(OrderedDict)
        self._num_bytes: Counter[str] = Counter()

    async def put(self, owner: str, response_id: str, stored: StoredResponse) -> None:
        """See ``ResponseStore``."""
        if stored.num_bytes > self._max_bytes:
            raise StoreError("the response is larger than the store")
        self._by_owner[owner][response_id] = stored
        self._num_bytes[owner] += stored.num_bytes
        while self._num_bytes.total() > self._max_bytes or sum(map(len, self._by_owner.values())) > self._max_responses:
            (most, _), *_ = self._num_bytes.most_common(1)
            self._remove(most, next(iter(self._by_owner[most])))

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """See ``ResponseStore``."""
        own = self._by_owner.get(owner, OrderedDict())
        if response_id in own:
            own.move_to_end(response_id)
        return own.get(response_id)

    async def delete(self, owner: str, response_id: str) -> bool:
        """See ``ResponseStore``."""
        is_there = response_id in self._by_owner.get(owner, ())
        if is_there:
            self._remove(owner, response_id)
        return is_there

    async def close(self) -> None:
        """Nothing: it goes with the process."""

    def _remove(self, owner: str, response_id: str) -> None:
        self._num_bytes[owner] -= self._by_owner[owner].pop(response_id).num_bytes
        if not self._by_owner[owner]:
            del self._by_owner[owner], self._num_bytes[owner]
