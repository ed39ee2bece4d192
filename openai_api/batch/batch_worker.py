"""One batch on its way: validated, answered row by row, and its two files given to its owner.

Owns the order of writing, so that a batch whose process was killed goes on with no row lost and none
twice: the files first, then how far they are whole. Rows give way to everybody else's requests.
Event loop; files are written in a worker thread.
"""

import asyncio
import json
import os
import threading
import time
from contextlib import aclosing, closing
from dataclasses import replace
from itertools import islice

from engine.caller import Caller
from openai_api.app_state import AppState
from openai_api.batch.answering import outcome_of
from openai_api.batch.batch_store import BatchState, BatchStatus, BatchStore, LineError
from openai_api.batch.file_store import FileStore
from openai_api.batch.input_check import check_input
from openai_api.batch.line_task import LineTask
from openai_api.batch.row import BadRow, Columns, Record
from openai_api.batch.runner import in_order
from openai_api.batch.sources import JsonLines

SAVE_INTERVAL_S = 1.0
INPUT_DELETED = LineError("file_not_found", "The input file has been deleted.", "input_file_id")
ROWS_AT_ONCE = 64  # more than any engine's seats bring little


class BatchWorker:
    """Mutable: ``batch`` is as it stands."""

    def __init__(self, batch: BatchState, *, files: FileStore, batches: BatchStore, app_state: AppState) -> None:
        self.batch = batch
        self._files = files
        self._batches = batches
        self._app_state = app_state
        self._caller = Caller(name=f"owner {batch.owner}", prefix_salt=f"owner {batch.owner}").giving_way()
        self._unwritten = (bytearray(), bytearray())  # answers, errors
        self._saving = threading.Lock()  # whoever is cancelled leaves a save behind that still runs
        # A clock that is set while this runs makes nothing late.
        self._deadline_s = time.monotonic() + batch.expires_at - time.time()

    async def run(self) -> None:
        """To its end; cancelled, it can be run again by another worker.

        Raises:
            OSError: a file or the database cannot be written.
            EngineNotReadyError: the engine has died for good.
        """
        if self.batch.status is BatchStatus.VALIDATING:
            await self._validate()
        if self.batch.status is BatchStatus.IN_PROGRESS:
            try:
                await self._answer()
            except FileNotFoundError:
                self.batch = replace(self.batch, errors=(INPUT_DELETED,))
                await self._reach(BatchStatus.FAILED)
        if self.batch.status in (BatchStatus.FINALIZING, BatchStatus.CANCELLING):
            await self._finalize()

    async def _validate(self) -> None:
        source = self._files.find(self.batch.owner, self.batch.input_file_id)
        if source is None:
            total, errors = 0, [INPUT_DELETED]
        else:
            total, errors = await asyncio.to_thread(check_input, self._files.path(source.id), self.batch.endpoint)
        self.batch = replace(self.batch, total=total, errors=tuple(errors))
        await self._reach(BatchStatus.FAILED if errors else BatchStatus.IN_PROGRESS)

    async def _answer(self) -> None:
        """All rows that have no record yet, until none is left or the time is over."""
        with self._app_state.metrics.batches_in_progress.track_inprogress():
            await self._answer_rows()
        await self._reach(BatchStatus.FINALIZING)

    async def _answer_rows(self) -> None:
        await asyncio.to_thread(self._cut_files)
        task, saved_s = LineTask([self.batch.endpoint]), time.monotonic()

        async def answer(row: Columns | BadRow) -> Record:
            request = row if isinstance(row, BadRow) else task.request(row)
            if isinstance(request, BadRow):
                return task.record(row, request)
            if self._is_late():
                return task.record(row, BadRow("The batch expired before this row was computed."))
            return task.record(row, await outcome_of(request, self._app_state, caller=self._caller))

        with closing(JsonLines(self._files.path(self.batch.input_file_id))) as source:
            rows = islice(source.rows(), self.batch.completed + self.batch.failed, None)
            async with aclosing(in_order(rows, answer, num_at_once=ROWS_AT_ONCE)) as records:
                async for record in records:
                    self._take(record)
                    if time.monotonic() - saved_s >= SAVE_INTERVAL_S:
                        await self.save()
                        saved_s = time.monotonic()

    def _take(self, record: Record) -> None:
        line = json.dumps(record.members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._unwritten[record.is_failed].extend(line)
        self._app_state.metrics.batch_rows.labels("failed" if record.is_failed else "completed").inc()
        failed = self.batch.failed + record.is_failed
        self.batch = replace(self.batch, failed=failed, completed=self.batch.completed + (not record.is_failed))

    async def save(self) -> None:
        """All that was taken is on the disk, and another worker goes on behind it."""
        await asyncio.to_thread(self._save)

    def _save(self) -> None:
        with self._saving:
            self._write()

    def _write(self) -> None:
        marks = (
            (self.batch.output_file_id, self.batch.num_output_bytes),
            (self.batch.error_file_id, self.batch.num_error_bytes),
        )
        for (file_id, num_bytes), data in zip(marks, self._unwritten, strict=True):
            if data:
                with self._files.path(file_id).open("ab") as file:
                    file.truncate(num_bytes)  # a save that failed may have left a part of the same rows
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        num_output_bytes = self.batch.num_output_bytes + len(self._unwritten[0])
        num_error_bytes = self.batch.num_error_bytes + len(self._unwritten[1])
        self.batch = replace(self.batch, num_output_bytes=num_output_bytes, num_error_bytes=num_error_bytes)
        for data in self._unwritten:
            data.clear()
        self._batches.save(self.batch)

    def _cut_files(self) -> None:
        """What a killed process wrote behind the last mark is written again."""
        marks = {
            self.batch.output_file_id: self.batch.num_output_bytes,
            self.batch.error_file_id: self.batch.num_error_bytes,
        }
        for file_id, num_bytes in marks.items():
            path = self._files.path(file_id)
            if num_bytes or path.exists():
                os.truncate(path, num_bytes)

    async def _finalize(self) -> None:
        """Cancelled or not, what was answered is the owner's."""
        await asyncio.to_thread(self._give_files)
        if self.batch.status is BatchStatus.CANCELLING:
            await self._reach(BatchStatus.CANCELLED)
        else:
            await self._reach(BatchStatus.EXPIRED if self._is_late() else BatchStatus.COMPLETED)

    def _is_late(self) -> bool:
        return time.monotonic() >= self._deadline_s

    def _give_files(self) -> None:
        self._cut_files()
        for file_id, num_bytes, kind in (
            (self.batch.output_file_id, self.batch.num_output_bytes, "output"),
            (self.batch.error_file_id, self.batch.num_error_bytes, "error"),
        ):
            if num_bytes:
                self._files.register(
                    file_id,
                    owner=self.batch.owner,
                    filename=f"{self.batch.id}_{kind}.jsonl",
                    purpose="batch_output",
                    lives_s=self.batch.output_lives_s,
                )

    async def _reach(self, status: BatchStatus) -> None:
        self.batch = self.batch.at(status)
        await self.save()
