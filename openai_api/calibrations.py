"""How likely the options of questions are without an input, remembered by question.

Owns the bounded memory of it, so that many inputs of one question cost its calibration once. Callers do not share
entries: the time of an answer must not tell one of another's questions. Event loop.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from weakref import WeakValueDictionary

from engine.caller import Caller

MAX_QUESTIONS = 512
MAX_OPTIONS = 65_536  # in all: half a MiB of numbers


class Calibrations:
    """Log likelihoods of options by question, least recently used out first. Mutable."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, ...]] = OrderedDict()
        self._num_options = 0
        self._turns = WeakValueDictionary[tuple[bytes, bool], asyncio.Lock]()

    async def get(
        self, key: bytes, caller: Caller, measure: Callable[[], Awaitable[tuple[float, ...]]]
    ) -> tuple[float, ...]:
        """What is kept under ``key``, or else what ``measure`` finds. Of those who ask at the same time one measures,
        and the next if that one fails or goes away. Nobody waits for a caller who gives way but those who do too.
        """
        async with self._turns.setdefault((key, caller.gives_way), asyncio.Lock()):
            known = self.find(key)
            if known is None:
                known = await measure()
                self.keep(key, known)
            return known

    def find(self, key: bytes) -> tuple[float, ...] | None:
        """What was kept under ``key``, if it still is."""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def keep(self, key: bytes, likelihoods: tuple[float, ...]) -> None:
        """Remember them; what was used least recently gives way."""
        self._num_options += len(likelihoods) - len(self._known.pop(key, ()))
        self._known[key] = likelihoods
        while len(self._known) > MAX_QUESTIONS or self._num_options > MAX_OPTIONS:
            _, forgotten = self._known.popitem(last=False)
            self._num_options -= len(forgotten)


def calibration_key(caller: Caller, prompt: Sequence[int], options: Sequence[Sequence[int]]) -> bytes:
    """Differs wherever caller, prompt or options do."""
    told = repr((caller.prefix_salt, tuple(prompt), tuple(map(tuple, options))))
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16).digest()
