"""How far a batch has come, in a small SQLite file beside its output, so that a run can go on.

Owns what makes two runs the same one, the mark up to which the output is whole, and the lock that
keeps a second run away. A run that was killed left up to a second of output behind its last mark;
that part may end in the middle of a line, and is cut off and computed again. Knows no row. One
thread.
"""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLE = "CREATE TABLE IF NOT EXISTS journal (name TEXT PRIMARY KEY, value TEXT NOT NULL)"


@dataclass(frozen=True, slots=True)
class Mark:
    """``num_rows`` rows are in the first ``num_bytes`` bytes of the output; ``num_failed`` of them have no answer."""

    num_rows: int = 0
    num_bytes: int = 0
    num_failed: int = 0


class Journal:
    """Open as long as the run lasts.

    Raises:
        ValueError: another run has it open, or it is none of ours.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN EXCLUSIVE")
            self._database.execute(_TABLE)
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ValueError(f"{path}: another run is writing this output") from None
            raise OSError(f"{path}: {error}") from None
        except sqlite3.DatabaseError:
            raise ValueError(f"{path}: this is no journal of a batch; remove it, or give another --output") from None

    def close(self) -> None:
        self._database.close()

    @property
    def has_output(self) -> bool:
        """Whether there is anything that a run must go on with."""
        return self.mark is not None and self.mark.num_bytes > 0

    def begin(self, identity: Mapping[str, object], *, has_output: bool) -> None:
        """The run is one with this ``identity``: name of a flag -> its value. One without output may become another.

        Raises:
            ValueError: it was begun as another one; the text names what differs.
        """
        known = self._read("identity")
        if known is None or not has_output:
            self._write("identity", identity)
            return
        told = json.loads(json.dumps(identity))
        differing = [name for name in {**known, **told} if known.get(name) != told.get(name)]
        if differing:
            raise ValueError(
                f"the output was begun with another {', '.join(differing)}; give another --output, or remove it and "
                f"{self.path}"
            )

    def begin_with_model(self, fingerprint: str) -> None:
        """The run's model and arithmetic, known only when it is loaded.

        Raises:
            ValueError: it was begun with another model, or on another kind of machine.
        """
        known = self._read("model")
        if known is None or not self.has_output:
            self._write("model", {"fingerprint": fingerprint})
        elif known["fingerprint"] != fingerprint:
            raise ValueError(
                f"the output was begun with {known['fingerprint']}, and this is {fingerprint}: other weights, arithmetic or "
                f"version; give another --output, or remove it and {self.path}"
            )

    @property
    def mark(self) -> Mark | None:
        """The last one; ``None`` before the output is opened."""
        known = self._read("mark")
        return None if known is None else Mark(**known)

    def set_mark(self, mark: Mark) -> None:
        """The output must be on its disk up to there."""
        self._write("mark", {"num_rows": mark.num_rows, "num_bytes": mark.num_bytes, "num_failed": mark.num_failed})

    def _read(self, name: str) -> dict[str, Any] | None:
        with closing(self._database.execute("SELECT value FROM journal WHERE name = ?", (name,))) as found:
            row = found.fetchone()
        return None if row is None else json.loads(row[0])

    def _write(self, name: str, value: Mapping[str, object]) -> None:
        try:
            self._database.execute("INSERT OR REPLACE INTO journal VALUES (?, ?)", (name, json.dumps(value)))
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path}: {error}") from None
