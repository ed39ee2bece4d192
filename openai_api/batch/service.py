"""Files and batches of one server: the stores under its data folder, and the batches on their way.

Owns who may use the folder, which batch runs when (of each owner one at a time, the oldest first),
and what becomes of them when the server ends: they go on with the next one. Event loop.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from starlette.requests import Request

from engine.errors import EngineNotReadyError
from openai_api.app_state import AppState
from openai_api.batch.batch_store import UNFINISHED, BatchState, BatchStatus, BatchStore
from openai_api.batch.batch_worker import BatchWorker
from openai_api.batch.database import Database
from openai_api.batch.file_store import FileLimits, FileStore
from openai_api.errors import ApiError, retry_after
from openai_api.logs import log_event, where_it_failed

RETRY_S = 5.0


class BatchService:
    """Mutable. ``start`` once, then ``stop`` once.

    Raises:
        OSError: the folder cannot be read or written.
    """

    def __init__(self, folder: Path, app_state: AppState) -> None:
        self._app_state = app_state
        self._database = Database(folder / "batches.sqlite3")
        self.files = FileStore(folder / "files", self._database, FileLimits())
        self.batches = BatchStore(self._database)
        self._workers: dict[str, BatchWorker] = {}  # by batch
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by owner

    def start(self) -> None:
        """Remove what uploads have left, and go on with the batches that a server before has left."""
        unfinished = self.batches.unfinished()
        written = [(batch.output_file_id, batch.error_file_id) for batch in unfinished]
        self.files.remove_leftovers({file_id for pair in written for file_id in pair})
        for batch in unfinished:
            self._run(batch.owner)

    async def stop(self) -> None:
        """Every batch is on the disk as it stands."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._workers.values():
            with suppress(OSError):
                await worker.save()
        self._database.close()

    async def create(self, batch: BatchState) -> None:
        """Begin with it, or put it behind its owner's others."""
        await asyncio.to_thread(self.batches.add, batch)
        self._run(batch.owner)

    def find(self, owner: str, batch_id: str) -> BatchState | None:
        """As it stands now; ``None`` also for another's."""
        worker = self._workers.get(batch_id)
        if worker is not None and worker.batch.owner == owner:
            return worker.batch
        return self.batches.find(owner, batch_id)

    async def cancel(self, batch: BatchState) -> BatchState:
        """What was answered stays, nothing more is. Already ended, it stays as it is."""
        if batch.status not in UNFINISHED or batch.status is BatchStatus.CANCELLING:
            return batch
        try:
            await self._pause(batch.owner)
            batch = self.batches.find(batch.owner, batch.id) or batch
            if batch.status in UNFINISHED:
                batch = batch.at(BatchStatus.CANCELLING)
                await asyncio.to_thread(self.batches.save, batch)
        finally:
            self._run(batch.owner)  # it goes on, too, where its end cannot be written
        return batch

    async def _pause(self, owner: str) -> None:
        task = self._tasks.pop(owner, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for worker in [worker for worker in self._workers.values() if worker.batch.owner == owner]:
            del self._workers[worker.batch.id]  # rows that cannot be saved are computed again
            await worker.save()

    def _run(self, owner: str) -> None:
        if owner not in self._tasks:
            self._tasks[owner] = asyncio.create_task(self._run_all_of(owner))

    async def _run_all_of(self, owner: str) -> None:
        try:
            # Asked on the event loop: no batch can come between the answer "none" and the end of this task.
            while batch := self._next_of(owner):
                await self._run_one(batch)
        except EngineNotReadyError:
            pass  # the server ends, and the next one goes on
        self._tasks.pop(owner, None)

    def _next_of(self, owner: str) -> BatchState | None:
        return next((batch for batch in self.batches.unfinished() if batch.owner == owner), None)

    async def _run_one(self, batch: BatchState) -> None:
        worker = BatchWorker(batch, files=self.files, batches=self.batches, app_state=self._app_state)
        self._workers[batch.id] = worker
        try:
            await worker.run()
        except EngineNotReadyError:
            raise
        except Exception as error:  # this batch alone is tried again, from where it was saved
            why = str(error) if isinstance(error, OSError) else ""
            log_event(logging.ERROR, "batch_waits", {"batch": batch.id, **where_it_failed(error), "reason": why})
            await asyncio.sleep(RETRY_S)
        del self._workers[batch.id]


def service_of(request: Request) -> BatchService:
    """The one of the app that serves ``request``. Raises: ApiError 404 where there is no data folder."""
    service = request.app.state.batches
    if service is None:
        message = "This server keeps no files: start it with --data-dir DIR."
        raise ApiError(404, message, code="no_data_dir")
    assert isinstance(service, BatchService)
    return service


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raises: ApiError 503 in place of ``OSError``, without its path: there is no room, or the folder is read-only."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or "its database cannot be written"
        log_event(logging.ERROR, "data_dir_failed", {"reason": str(error)})
        message = f"Nothing was stored: the server's data folder cannot be used ({reason})."
        raise ApiError(503, message, code="storage_failed", headers=retry_after(60)) from None
