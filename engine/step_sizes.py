"""How many tokens the steps of an engine computed, as a histogram that only grows.

Knows no step. ``StepSizes`` is a plain value that crosses to the event loop; the counting is done on
the engine thread, in under a microsecond a step.
"""

from bisect import bisect_left
from collections import abc
from dataclasses import dataclass
from itertools import accumulate
from math import inf

BOUNDS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, inf)
"""vLLM's: a step is counted under the first that is no smaller."""


@dataclass(frozen=True, slots=True)
class StepSizes:
    """``num_steps`` for each of ``BOUNDS``; ``num_tokens`` of all steps."""

    num_steps: tuple[int, ...] = (0,) * len(BOUNDS)
    num_tokens: int = 0

    def __add__(self, other: "StepSizes") -> "StepSizes":
        steps = tuple([a + b for a, b in zip(self.num_steps, other.num_steps, strict=True)])
        return StepSizes(steps, self.num_tokens + other.num_tokens)

    @property
    def up_to(self) -> abc.Iterator[tuple[float, int]]:
        """For each bound how many steps are no larger."""
        return zip(BOUNDS, accumulate(self.num_steps), strict=True)


class StepSizeCounter:
    """Mutable."""

    def __init__(self) -> None:
        self._num_steps = [0] * len(BOUNDS)
        self._num_tokens = 0

    def count(self, num_tokens: int) -> None:
        """One step more."""
        self._num_steps[bisect_left(BOUNDS, num_tokens)] += 1
        self._num_tokens += num_tokens

    @property
    def sizes(self) -> StepSizes:
        """So far."""
        return StepSizes(tuple(self._num_steps), self._num_tokens)
