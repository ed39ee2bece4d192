"""News of something long: the type of what is told, a bar that shows it on a terminal, and lines for a log.

Imports nothing large before there is something to show. One thread tells, and closes the bar.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger("gemma3")

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


def no_progress(num_done: int, num_steps: int) -> None:
    """Show nothing."""


class LoadingBar:
    """A progress bar that appears with the first news: most starts bring none, and need not import tqdm. It goes with
    the last step, or when it is closed."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: tqdm[None] | None = None

    def __call__(self, num_done: int, num_steps: int) -> None:
        if not self._is_shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(desc="Loading", total=num_steps, leave=False)
        self._bar.update(num_done - self._bar.n)
        if num_done == num_steps:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ProgressLines:
    """Lines in the log, one in ``interval_s`` seconds and none for what takes no longer than that."""

    def __init__(self, task: str, *, interval_s: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._task = task
        self._interval_s = interval_s
        self._clock = clock
        self._told_s: float | None = None

    def __call__(self, num_done: int, num_steps: int) -> None:
        now_s = self._clock()
        if self._told_s is None:
            self._told_s = now_s
        elif now_s - self._told_s >= self._interval_s:
            self._told_s = now_s
            log.info("%s: %d %%", self._task, 100 * num_done // num_steps)


def loading_news() -> Progress:
    """Of a server: a bar for a person at a terminal, else lines in the log."""
    is_seen = sys.stderr is not None and sys.stderr.isatty()
    return LoadingBar(is_shown=True) if is_seen else ProgressLines("Loading")
