"""Responses kept in a folder, in SQLite: they are there after a restart, and after a kill.

Owns the file, its schema and who may open it: one server at a time. Knows no HTTP. Opened in the
main thread, before anything is loaded; from then on one thread of its own works with it, so that
the event loop never waits for a disk.
"""

import asyncio
import errno
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from openai_api.response_store import StoredResponse, StoreError
from openai_api.settings import OptionError

T = TypeVar("T")

FILE_NAME = "responses.sqlite3"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    response BLOB NOT NULL,
    items BLOB NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (owner, id)
);
CREATE INDEX IF NOT EXISTS by_use ON responses (owner, used);
"""
_SIZES = "SELECT owner, SUM(LENGTH(response) + LENGTH(items)) FROM responses GROUP BY owner"
_OLDEST = "SELECT id, LENGTH(response) + LENGTH(items) FROM responses WHERE owner = ? ORDER BY used LIMIT 1"
_REASONS = {
    "database is locked": "another server is using it",
    "unable to open database file": "it cannot be written",
    "attempt to write a readonly database": "it cannot be written",
    "database or disk is full": "there is no space left",
    "file is not a database": f"its {FILE_NAME} is damaged or no database",
    "database disk image is malformed": f"its {FILE_NAME} is damaged or no database",
}


class ResponseDatabase:
    """A ``ResponseStore`` of at most so many bytes. Mutable."""

    def __init__(self, folder: str, *, max_bytes: int) -> None:
        """Raises: OptionError, the folder cannot be used, and why."""
        self._max_bytes = max_bytes
        try:
            self._file = _opened(Path(folder))
            self._num_bytes = Counter(dict(self._file.execute(_SIZES)))
            (self._last_use,) = self._file.execute("SELECT COALESCE(MAX(used), 0) FROM responses").fetchone()
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else _REASONS.get(str(error), str(error))
            raise OptionError(f"--data-dir {folder!r} cannot be used: {why}") from None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="responses")

    async def put(self, owner: str, response_id: str, stored: StoredResponse) -> None:
        """See ``ResponseStore``; it is on its way to the disk when this returns, beyond a kill."""
        if stored.num_bytes > self._max_bytes:
            raise StoreError("the response is larger than the store")
        await self._do(lambda: self._put(owner, response_id, stored))

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """See ``ResponseStore``."""
        return await self._do(lambda: self._get(owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        """See ``ResponseStore``."""
        return await self._do(lambda: self._delete(owner, response_id))

    async def close(self) -> None:
        """See ``ResponseStore``; another server may open it then."""
        await self._do(self._file.close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[], T]) -> T:
        """Cancelled, it is done all the same."""

        def guarded() -> T:
            try:
                return work()
            except sqlite3.Error as error:
                raise StoreError(_REASONS.get(str(error), str(error))) from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _put(self, owner: str, response_id: str, stored: StoredResponse) -> None:
        self._last_use += 1
        num_bytes = self._num_bytes.copy()
        with self._file:  # all of it or nothing
            values = (owner, response_id, stored.response, stored.items, self._last_use)
            self._file.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?)", values)
            num_bytes[owner] += stored.num_bytes
            while num_bytes.total() > self._max_bytes:
                self._remove_oldest(num_bytes)
        self._num_bytes = num_bytes

    def _remove_oldest(self, num_bytes: Counter[str]) -> None:
        """Of the owner that holds the most bytes."""
        (owner, _), *_ = num_bytes.most_common(1)
        oldest, size = self._file.execute(_OLDEST, (owner,)).fetchone()
        self._file.execute("DELETE FROM responses WHERE owner = ? AND id = ?", (owner, oldest))
        num_bytes[owner] -= size

    def _get(self, owner: str, response_id: str) -> StoredResponse | None:
        found = self._find(owner, response_id)
        if found is not None:
            self._last_use += 1
            with suppress(sqlite3.Error), self._file:  # a full disk can still be read
                values = (self._last_use, owner, response_id)
                self._file.execute("UPDATE responses SET used = ? WHERE owner = ? AND id = ?", values)
        return found

    def _find(self, owner: str, response_id: str) -> StoredResponse | None:
        select = "SELECT response, items FROM responses WHERE owner = ? AND id = ?"
        row = self._file.execute(select, (owner, response_id)).fetchone()
        return None if row is None else StoredResponse(*row)

    def _delete(self, owner: str, response_id: str) -> bool:
        found = self._find(owner, response_id)
        if found is None:
            return False
        with self._file:
            self._file.execute("DELETE FROM responses WHERE owner = ? AND id = ?", (owner, response_id))
        self._num_bytes[owner] -= found.num_bytes
        return True


def _opened(folder: Path) -> sqlite3.Connection:
    """The database in ``folder``, made if it is not there, which nobody else can open until it is
    closed or this process ends.

    Raises:
        OSError, sqlite3.Error: it cannot be.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder") from None
    path = folder / FILE_NAME
    with suppress(FileExistsError):  # whose locks would go with any handle that is closed
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # its journal gets the same mode
    file = sqlite3.connect(path, timeout=0, check_same_thread=False)
    try:
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("PRAGMA secure_delete = ON")
        _prepare(file)
    except sqlite3.Error:
        file.close()
        raise
    return file


def _prepare(file: sqlite3.Connection) -> None:
    """Writes something in any case, to find out now that nothing can be written."""
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA_VERSION):
        raise sqlite3.DatabaseError(f"its {FILE_NAME} is of another version of this server")
    file.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
