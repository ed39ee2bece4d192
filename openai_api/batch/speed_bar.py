"""The progress of a batch on a terminal: rows and tokens a second, and the time that is left.

Owns what is shown; tqdm draws it. Knows nothing of rows. One thread.
"""

import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from openai_api.batch.journal import Mark
from openai_api.batch.sources import Source

_FORM = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
_STEPS = 1000


class SpeedBar:
    """In a ``with`` statement; mutable."""

    def __init__(self, source: Source, mark: Mark, *, is_shown: bool) -> None:
        self._source = source
        self._num_rows_before = mark.num_rows
        self._num_rows = self._num_tokens = 0
        self._began_s = time.monotonic()
        self._bar = tqdm(total=_STEPS, bar_format=_FORM, disable=not is_shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def add(self, num_tokens: int) -> None:
        """A row was written."""
        self._num_rows += 1
        self._num_tokens += num_tokens
        if self._bar.disable:
            return
        elapsed_s = max(1e-9, time.monotonic() - self._began_s)
        self._bar.set_description_str(
            f"{self._num_rows_before + self._num_rows:,} rows, {self._num_rows / elapsed_s:,.0f} rows/s, "
            f"{self._num_tokens / elapsed_s:,.0f} tokens/s",
            refresh=False,
        )
        self._bar.update(int(self._source.fraction_read() * _STEPS) - self._bar.n)
