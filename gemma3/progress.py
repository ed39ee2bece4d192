"""News of something long: the type of what is told, and a bar that shows it on a terminal.

Imports nothing large before there is something to show. Any thread may tell; one thread closes the bar.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


def no_progress(num_done: int, num_steps: int) -> None:
    """Show nothing."""


class LoadingBar:
    """A progress bar that appears with the first news: most starts bring none, and need not import tqdm."""

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

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
