"""Files and batches as OpenAI's clients read them.

Owns names and types; knows nothing of how a batch runs. Runs on the event loop.
"""

from collections.abc import Mapping
from typing import Literal

from openai_api.answer.models import Answer


class FileAnswer(Answer):
    """A stored file; times are in unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(Answer):
    """A page of them; the next begins behind ``last_id``."""

    object: Literal["list"] = "list"
    data: list[FileAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(Answer):
    """It is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BatchErrorAnswer(Answer):
    """What is wrong with the input file; ``line`` is counted from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(Answer):
    """Why a batch failed before a row of it was computed."""

    object: Literal["list"] = "list"
    data: list[BatchErrorAnswer]


class RequestCounts(Answer):
    """Rows."""

    total: int
    completed: int
    failed: int


class BatchAnswer(Answer):
    """A batch as it stands; times are in unix seconds."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    metadata: Mapping[str, str] | None


class BatchList(Answer):
    """A page of them, the newest first; the next begins behind ``last_id``."""

    object: Literal["list"] = "list"
    data: list[BatchAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool
