"""Files that clients have uploaded, and those that batches write, under a data folder.

Owns their bytes, their rows in the database, and the quotas. The name that a client gave is only
told back: on the disk a file has its id as its name, and no id comes from a client. A file whose
upload did not end is removed at the next start. Knows nothing of HTTP or of what is in a file. Any
thread.
"""

import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from openai_api.batch.database import Database

_INSERT = (
    "INSERT OR IGNORE INTO files (id, owner, filename, purpose, num_bytes, created_at, expires_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_FIND = (
    "SELECT id, owner, filename, purpose, num_bytes, created_at, expires_at FROM files "
    "WHERE id = ? AND owner = ? AND COALESCE(expires_at > ?, TRUE)"
)
_PAGE = (
    "SELECT id, owner, filename, purpose, num_bytes, created_at, expires_at FROM files "
    "WHERE owner = :owner AND COALESCE(expires_at > :now, TRUE) AND (:purpose IS NULL OR purpose = :purpose) "
)
_NEWEST_FIRST = (
    _PAGE + "AND (:after IS NULL OR number < (SELECT number FROM files WHERE id = :after)) "  # noqa: S608
    "ORDER BY number DESC LIMIT :limit"
)
_OLDEST_FIRST = (
    _PAGE + "AND (:after IS NULL OR number > (SELECT number FROM files WHERE id = :after)) "  # noqa: S608
    "ORDER BY number ASC LIMIT :limit"
)


class NoRoomError(Exception):
    """A quota is used up; the text says which, for a person."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """``num_bytes`` are on the disk; times are in unix seconds."""

    id: str
    owner: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: int
    expires_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """``max_num_files`` and ``max_total_bytes`` are those of all owners."""

    max_file_bytes: int = 512 << 20
    max_total_bytes: int = 8 << 30
    max_num_files: int = 10_000


class FileStore:
    """Raises: OSError, the folder cannot be read or written."""

    def __init__(self, folder: Path, database: Database, limits: FileLimits) -> None:
        self.limits = limits
        self._folder = folder
        self._database = database
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.remove_expired()

    def path(self, file_id: str) -> Path:
        """Where its bytes are; ``file_id`` is one of this store's own."""
        return self._folder / file_id

    def begin(self) -> "NewFile":
        """A file to be written.

        Raises:
            NoRoomError: there are as many files, or bytes, as may be.
        """
        self.remove_expired()
        ((num_files, num_bytes),) = self._database.rows("SELECT COUNT(*), COALESCE(SUM(num_bytes), 0) FROM files")
        assert isinstance(num_files, int)
        assert isinstance(num_bytes, int)
        if num_files >= self.limits.max_num_files:
            raise NoRoomError(f"{num_files} files are stored, and no more may be; delete some.")
        room = min(self.limits.max_file_bytes, self.limits.max_total_bytes - num_bytes)
        if room <= 0:
            raise NoRoomError(f"The stored files have {num_bytes} bytes, and no more may be; delete some.")
        return NewFile(self._folder, new_id("file"), room)

    def add(self, new: "NewFile", *, owner: str, filename: str, purpose: str, lives_s: int | None) -> StoredFile:
        """Keep what was written; it is on the disk then."""
        new.sync()
        return self.register(new.id, owner=owner, filename=filename, purpose=purpose, lives_s=lives_s)

    def register(self, file_id: str, *, owner: str, filename: str, purpose: str, lives_s: int | None) -> StoredFile:
        """A file that lies at ``path(file_id)`` already."""
        now = int(time.time())
        expires_at = None if lives_s is None else now + lives_s
        size = self.path(file_id).stat().st_size
        stored = StoredFile(file_id, owner, filename, purpose, size, now, expires_at)
        self._database.rows(_INSERT, (file_id, owner, filename, purpose, size, now, expires_at))
        return stored

    def find(self, owner: str, file_id: str) -> StoredFile | None:
        """``None`` also for another's, and for one whose time is over."""
        found = self._database.rows(_FIND, (file_id, owner, int(time.time())))
        return StoredFile(*found[0]) if found else None  # type: ignore[arg-type]

    def page(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, is_newest_first: bool
    ) -> list[StoredFile]:
        """At most ``limit`` of the owner's files behind the one with the id ``after``."""
        values = {"owner": owner, "now": int(time.time()), "purpose": purpose, "after": after, "limit": limit}
        rows = self._database.rows(_NEWEST_FIRST if is_newest_first else _OLDEST_FIRST, values)
        return [StoredFile(*row) for row in rows]  # type: ignore[arg-type]

    def delete(self, file_id: str) -> None:
        """The row first: bytes without a row are removed at the next start."""
        self._database.rows("DELETE FROM files WHERE id = ?", (file_id,))
        self.path(file_id).unlink(missing_ok=True)

    def remove_expired(self) -> None:
        """Those whose time is over, and what has no row and is being written by nobody."""
        for (file_id,) in self._database.rows("SELECT id FROM files WHERE expires_at <= ?", (int(time.time()),)):
            self.delete(str(file_id))

    def remove_leftovers(self, known: set[str]) -> None:
        """Bytes of uploads that did not end; only at a start. ``known`` are ids that batches write."""
        stored = {str(file_id) for (file_id,) in self._database.rows("SELECT id FROM files")}
        for path in self._folder.iterdir():
            if path.name not in stored | known:
                path.unlink(missing_ok=True)


class NewFile:
    """Written chunk by chunk, then added to its store or discarded."""

    def __init__(self, folder: Path, file_id: str, room: int) -> None:
        self.id = file_id
        self.num_bytes = 0
        self._path = folder / file_id
        self._room = room
        self._file: BinaryIO = self._path.open("xb")

    def write(self, data: bytes) -> None:
        """Raises ``NoRoomError`` beyond what may be stored, and ``OSError``."""
        self.num_bytes += len(data)
        if self.num_bytes > self._room:
            raise NoRoomError(f"The file is larger than the {self._room} bytes that may be stored.")
        self._file.write(data)

    def sync(self) -> None:
        """All of it is on the disk, and nothing more is written."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """It never was."""
        with suppress(OSError):  # closing writes what is left, and the disk may be full
            self._file.close()
        self._path.unlink(missing_ok=True)


def new_id(kind: str) -> str:
    """``KIND-`` and 32 hexadecimal digits."""
    return f"{kind}-{uuid.uuid4().hex}"
