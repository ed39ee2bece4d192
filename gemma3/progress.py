"""What is called while something long goes on. Any thread may call it; a caller decides whether it shows anything."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


def no_progress(num_done: int, num_steps: int) -> None:
    """Show nothing."""
