"""Rows out of a file: JSON lines, CSV or Parquet, one after the other, whatever the file's size.

Owns the three formats and what is said of a row that cannot be read, which ends nothing. Knows
nothing of what is asked of a row. Reads on the thread that iterates.
"""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol

from openai_api.batch.row import BadRow, Columns
from openai_api.errors import ApiError
from openai_api.request.strict_json import parse_json
from openai_api.settings import MIB

MAX_LINE_BYTES = 16 * MIB
MAX_JSON_DEPTH = 64
MAX_JSON_VALUES = 300_000
_PARQUET_ROWS = 256  # read at once
_PROBE_BYTES = MIB


class Source(Protocol):
    """A file of rows; iterated once."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of every row; empty where each row has its own."""

    def rows(self) -> Iterator[Columns | BadRow]:
        """In their order."""

    def fraction_read(self) -> float:
        """Of the file, from 0 to 1."""

    def close(self) -> None:
        """Nothing more is read."""


def open_source(path: Path) -> Source:
    """By the end of the name: ``.csv``, ``.parquet``, and JSON lines for every other.

    Raises:
        OSError: it cannot be read.
        ValueError: the format needs a package that is not there, or a header is missing.
    """
    match path.suffix.lower():
        case ".csv":
            return CsvRows(path)
        case ".parquet":
            return ParquetRows(path)
    return JsonLines(path)


def fingerprint(path: Path) -> str:
    """Tells one input from another: its size, and the bytes of its beginning and end."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_PROBE_BYTES))
        file.seek(max(0, size - _PROBE_BYTES))
        digest.update(file.read(_PROBE_BYTES))
    return digest.hexdigest()


def _check_names(path: Path, names: Sequence[str], where: str) -> None:
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{path}: {where} the names of its columns, each once")


class _Bytes:
    """A file that tells how much of it was read."""

    columns: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._num_bytes = path.stat().st_size

    def fraction_read(self) -> float:
        return self._file.tell() / self._num_bytes if self._num_bytes else 1.0

    def close(self) -> None:
        self._file.close()


class JsonLines(_Bytes):
    """One JSON object a line; blank lines are no rows. Mutable: ``line_number`` is that of the latest row."""

    line_number = 0

    def rows(self) -> Iterator[Columns | BadRow]:
        while line := self._file.readline(MAX_LINE_BYTES + 1):
            self.line_number += 1
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = self._file.readline(MAX_LINE_BYTES)
                yield BadRow(f"Line {self.line_number} is longer than {MAX_LINE_BYTES} bytes.")
            elif text := line.removeprefix(b"\xef\xbb\xbf").strip():
                yield self._json_object(text)

    def _json_object(self, line: bytes) -> Columns | BadRow:
        try:
            value = parse_json(line, max_depth=MAX_JSON_DEPTH, max_values=MAX_JSON_VALUES)
        except ApiError as error:
            return BadRow(error.message.replace("The request body", f"Line {self.line_number}"))
        return value if isinstance(value, dict) else BadRow(f"Line {self.line_number} is no JSON object.")


class CsvRows(_Bytes):
    """A header and rows, in UTF-8."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        csv.field_size_limit(MAX_LINE_BYTES)
        self._text = TextIOWrapper(self._file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._is_over = False
        self._reader = csv.reader(self._lines())
        try:
            self.columns = self._header(path)
        except ValueError:
            self.close()
            raise

    def _header(self, path: Path) -> tuple[str, ...]:
        try:
            names = tuple(next(self._reader, ()))
        except csv.Error as error:
            raise ValueError(f"{path}: its first line is no CSV: {error}") from None
        _check_names(path, names, "the first line of a CSV file has")
        if self._is_over:
            raise ValueError(f"{path}: a quotation mark in its first line is never closed")
        if not all(map(_is_utf8, names)):
            raise ValueError(f"{path}: its first line is not UTF-8")
        return names

    def _lines(self) -> Iterator[str]:
        yield from self._text
        self._is_over = True

    def rows(self) -> Iterator[Columns | BadRow]:
        while True:
            line_number = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(f"Line {line_number} is no CSV: {error}.")
                continue
            if self._is_over:  # the row asked for one more line, and there was none
                yield BadRow(f"A quotation mark in line {line_number} is never closed, so all behind it is one row.")
            elif cells:  # a blank line is none
                yield self._row(cells, line_number)

    def _row(self, cells: list[str], line_number: int) -> Columns | BadRow:
        if len(cells) != len(self.columns):
            return BadRow(f"Line {line_number} has {len(cells)} cells, the header {len(self.columns)}.")
        if not all(map(_is_utf8, cells)):
            return BadRow(f"Line {line_number} is not UTF-8.")
        return dict(zip(self.columns, cells, strict=True))


def _is_utf8(cell: str) -> bool:
    """Bytes that are not were read as lone surrogates."""
    return cell.isascii() or not any("\udc80" <= char <= "\udcff" for char in cell)


class ParquetRows:
    """A Parquet file, read by some hundred rows."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise ValueError("Parquet needs pyarrow: pip install 'gemma3-270m-server[parquet]'") from None
        self._path = path
        with self._named():
            self._file = ParquetFile(path)
        self.columns = tuple(self._file.schema_arrow.names)
        self._num_read = 0
        _check_names(path, self.columns, "a Parquet file has")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """The library's errors do not say in which file."""
        try:
            yield
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise ValueError(f"{self._path}: {error}") from None

    def fraction_read(self) -> float:
        num_rows: int = self._file.metadata.num_rows
        return self._num_read / max(1, num_rows)

    def close(self) -> None:
        self._file.close()

    def rows(self) -> Iterator[Columns | BadRow]:
        batches = self._file.iter_batches(batch_size=_PARQUET_ROWS)
        while True:
            with self._named():
                batch = next(batches, None)
            if batch is None:
                return
            for row in batch.to_pylist():
                self._num_read += 1
                yield row
