"""Answers into a file, behind those that an earlier run has written.

Owns the formats of an output, JSON lines and CSV, and the order of writing: rows, then the disk,
then the mark in the journal. Knows nothing of how a row is answered. One thread.
"""

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from openai_api.batch.journal import Journal, Mark
from openai_api.batch.row import Record

MARK_INTERVAL_S = 1.0


class Output:
    """Appends records; mutable.

    Raises:
        ValueError: the file is there but is not what the journal says.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, journal: Journal, *, columns: Sequence[str]) -> None:
        self._journal = journal
        self._encode = encoder(path, columns)
        known = journal.mark
        if known is None and path.exists() and path.stat().st_size:
            raise ValueError(f"{path}: there is a file that no batch has begun; remove it, or give another --output")
        if known is None:
            journal.set_mark(Mark())  # before the first byte: killed behind it, the file is ours all the same
        self.mark = known or Mark()
        num_bytes = path.stat().st_size if path.exists() else 0
        if num_bytes < self.mark.num_bytes:
            raise ValueError(f"{path}: it is shorter than it was; remove it and {journal.path} to begin anew")
        if num_bytes > self.mark.num_bytes:
            os.truncate(path, self.mark.num_bytes)
        self._file = path.open("ab", buffering=0)
        self._unwritten = bytearray()
        self._marked_s = -math.inf
        if self.mark.num_bytes == 0:
            self._write(header(path, columns), Mark())

    def add(self, record: Record) -> None:
        """The next row's."""
        num_rows, num_failed = self.mark.num_rows + 1, self.mark.num_failed + record.is_failed
        self._write(self._encode(record), Mark(num_rows, self.mark.num_bytes, num_failed))
        if time.monotonic() - self._marked_s >= MARK_INTERVAL_S:
            self.save()

    def _write(self, data: bytes, mark: Mark) -> None:
        self._unwritten += data
        self.mark = Mark(mark.num_rows, mark.num_bytes + len(data), mark.num_failed)

    def save(self) -> None:
        """All that was added is on the disk, and a later run will go on behind it."""
        try:
            while self._unwritten:
                del self._unwritten[: self._file.write(self._unwritten)]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from None
        self._journal.set_mark(self.mark)
        self._marked_s = time.monotonic()

    def close(self) -> None:
        """Without saving."""
        self._file.close()


def encoder(path: Path, columns: Sequence[str]) -> Callable[[Record], bytes]:
    """A row of the output as its bytes; the format by the end of its name, ``columns`` being those of CSV."""
    return _csv_encoder(columns) if _is_csv(path) else _json_line


def header(path: Path, columns: Sequence[str]) -> bytes:
    """The bytes before the first row."""
    return _csv_line(columns) if _is_csv(path) else b""


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _json_line(record: Record) -> bytes:
    return json.dumps(record.members, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n"


def _csv_encoder(columns: Sequence[str]) -> Callable[[Record], bytes]:
    return lambda record: _csv_line([_cell(record.members.get(column)) for column in columns])


def _csv_line(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: object) -> object:
    """Text as it is, nothing for ``None``; everything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)
