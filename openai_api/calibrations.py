"""How likely the options of questions are without an input, remembered by question.

Owns the bounded memory of it, so that many inputs of one question cost its calibration once. Callers do not share
entries: the time of an answer must not tell one of another's questions. Event loop.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from engine.caller import Caller

MAX_QUESTIONS = 512
MAX_OPTIONS = 65_536  # in all: half a MiB of numbers


class Calibrations:
    """Log likelihoods of options by question, least recently used out first. Mutable."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, ...]] = OrderedDict()
        self._num_options = 0

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
