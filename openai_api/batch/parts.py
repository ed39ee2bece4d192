"""Parts of an output, computed anywhere and in any order, and the one file that they become.

A part has its place in its name and is there whole or not at all, so one that is computed twice is one all
the same. Owns the names and the joining; knows nothing of who computes. One thread.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openai_api.batch.journal import Mark
from openai_api.batch.outputs import header


@dataclass(frozen=True, slots=True)
class Part:
    """The answers to the rows ``[first, first + num_rows)``, ``num_failed`` of which have none."""

    first: int
    num_rows: int
    num_failed: int

    @property
    def name(self) -> str:
        """Sorts by the place in the output."""
        return f"{self.first:015}-{self.num_rows}-{self.num_failed}.part"

    @classmethod
    def of(cls, path: Path) -> "Part":
        """By its name alone."""
        return cls(*map(int, path.stem.split("-")))


@dataclass(frozen=True, slots=True)
class Parts:
    """A folder on storage that every machine sees; in it one folder, that of the model that answers."""

    folder: Path

    def found(self) -> list[Path]:
        """In the order of their rows."""
        return sorted(self.folder.glob("*/*.part"), key=lambda path: path.name)

    def folder_of(self, fingerprint: str) -> Path:
        """Where the answers of a model go. Raises: ValueError, there are another one's."""
        own = self.folder / fingerprint
        own.mkdir(parents=True, exist_ok=True)
        for other in self.folder.iterdir():
            if other != own:
                raise ValueError(
                    f"{self.folder}: answers of {other.name} are there, and this machine has {fingerprint}: other weights, "
                    "arithmetic or version; remove the folder, or give another --output"
                )
        return own


def join(paths: Sequence[Path], output: Path, columns: Sequence[str]) -> Mark:
    """The parts, which stay, as one file. Raises: OSError, it cannot be written."""
    unfinished = output.with_name(f"{output.name}.unfinished")
    num_rows = num_failed = 0
    with unfinished.open("wb") as file:
        file.write(header(output, columns))
        for path in paths:
            part = Part.of(path)
            if part.first < num_rows:  # computed twice, and drawn anew without a seed: the other one counts
                continue
            assert part.first == num_rows, f"{path} is behind row {num_rows}"
            with path.open("rb") as rows:
                shutil.copyfileobj(rows, file)
            num_rows, num_failed = num_rows + part.num_rows, num_failed + part.num_failed
        file.flush()
        os.fsync(file.fileno())
        num_bytes = file.tell()
    unfinished.replace(output)
    return Mark(num_rows, num_bytes, num_failed)
