"""Batches as they stand: what was asked, how far each has come, and how it ended.

Owns the states and what of a batch must survive the end of the process. Knows nothing of HTTP or of
how rows are answered. Any thread.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from openai_api.batch.database import Database
from openai_api.batch.file_store import new_id


class BatchStatus(StrEnum):
    """OpenAI's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


UNFINISHED = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)


@dataclass(frozen=True, slots=True)
class LineError:
    """Why a batch failed: ``line`` is counted from 1, ``None`` for the whole file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """One batch. Times are in unix seconds.

    Attributes:
        times: status -> when it was reached.
        output_file_id, error_file_id: where rows with and without an answer go.
        num_output_bytes, num_error_bytes: up to where these files are whole.
        total: rows of the input, known when it was validated.
        output_lives_s: how long the two files are kept.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    output_file_id: str
    error_file_id: str
    status: BatchStatus = BatchStatus.VALIDATING
    metadata: Mapping[str, str] | None = None
    output_lives_s: int | None = None
    times: Mapping[str, int] = field(default_factory=dict)
    errors: Sequence[LineError] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    num_output_bytes: int = 0
    num_error_bytes: int = 0

    def at(self, status: BatchStatus) -> "BatchState":
        """The same one in another state from now on, which is never before the last one: clocks are set back."""
        now = max(int(time.time()), self.created_at, *self.times.values())
        return replace(self, status=status, times={**self.times, status.value: now})


def new_batch(
    owner: str,
    *,
    endpoint: str,
    input_file_id: str,
    window: str,
    window_s: int,
    metadata: Mapping[str, str] | None,
    output_lives_s: int | None,
) -> BatchState:
    """One that has to be validated."""
    now = int(time.time())
    return BatchState(
        id=new_id("batch"),
        owner=owner,
        endpoint=endpoint,
        input_file_id=input_file_id,
        completion_window=window,
        created_at=now,
        expires_at=now + window_s,
        output_file_id=new_id("file"),
        error_file_id=new_id("file"),
        metadata=metadata,
        output_lives_s=output_lives_s,
    )


class BatchStore:
    """Raises: OSError, the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, batch: BatchState) -> None:
        """A new one; it is on the disk then."""
        query = "INSERT INTO batches (id, owner, status, document) VALUES (?, ?, ?, ?)"
        self._database.rows(query, (batch.id, batch.owner, batch.status, _document(batch)))

    def save(self, batch: BatchState) -> None:
        """As it stands now; it is on the disk then."""
        query = "UPDATE batches SET status = ?, document = ? WHERE id = ?"
        self._database.rows(query, (batch.status, _document(batch), batch.id))

    def find(self, owner: str, batch_id: str) -> BatchState | None:
        """``None`` also for another's."""
        query = "SELECT document FROM batches WHERE id = ? AND owner = ?"
        found = self._database.rows(query, (batch_id, owner))
        return _batch(found[0][0]) if found else None

    def page(self, owner: str, *, after: str | None, limit: int) -> list[BatchState]:
        """At most ``limit`` of the owner's, the newest first, behind the one with the id ``after``."""
        query = (
            "SELECT document FROM batches WHERE owner = ? "
            "AND (? IS NULL OR number < (SELECT number FROM batches WHERE id = ?)) ORDER BY number DESC LIMIT ?"
        )
        return [_batch(row[0]) for row in self._database.rows(query, (owner, after, after, limit))]

    def unfinished(self) -> list[BatchState]:
        """Everybody's, the oldest first."""
        query = "SELECT document FROM batches WHERE status IN (?, ?, ?, ?) ORDER BY number"
        return [_batch(row[0]) for row in self._database.rows(query, UNFINISHED)]


def _document(batch: BatchState) -> str:
    return json.dumps(asdict(batch))


def _batch(document: object) -> BatchState:
    members = json.loads(str(document))
    members["status"] = BatchStatus(members["status"])
    members["errors"] = tuple(LineError(**error) for error in members["errors"])
    return BatchState(**members)
