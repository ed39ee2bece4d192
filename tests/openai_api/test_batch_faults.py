"""Full disks, folders that cannot be written and clocks that are set: a clear error, and no row lost or twice."""

import asyncio
import errno
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from openai_api.app_state import new_app_state
from openai_api.batch import batch_worker
from openai_api.batch.batch_store import BatchState, BatchStatus, BatchStore, new_batch
from openai_api.batch.batch_worker import BatchWorker
from openai_api.batch.database import Database
from openai_api.batch.file_store import FileLimits, FileStore
from openai_api.batch.row import Record
from openai_api.batch.service import BatchService
from openai_api.response_store import MemoryStore
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import live_server
from tests.openai_api.test_batch import request, write_lines
from tests.openai_api.test_program import ROOT

DAYS_S = 86_400


def batch_of(files: FileStore, *, num_rows: int, window_s: int) -> BatchState:
    """One that nobody knows yet, with its input."""
    source = files.begin()
    body = {"model": MODEL_ID, "prompt": "Hi", "max_tokens": 3}
    lines = [{**request(number), "body": body} for number in range(num_rows)]
    source.write(write_lines(files.path("lines"), lines).read_bytes())
    files.add(source, owner="", filename="a", purpose="batch", lives_s=None)
    return new_batch(
        "",
        endpoint="/v1/completions",
        input_file_id=source.id,
        window="24h",
        window_s=window_s,
        metadata=None,
        output_lives_s=None,
    )


class Stores:
    """What one server has under its data folder."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "database")
        self.files = FileStore(folder / "files", self.database, FileLimits())
        self.batches = BatchStore(self.database)
        self.app_state = new_app_state(
            cast(Any, FakeEngine()), ServerSettings(), MemoryStore(max_responses=1, max_bytes=1)
        )

    def close(self) -> None:
        self.database.close()

    def batch(self, *, num_rows: int, window_s: int) -> BatchState:
        """A new one, with its input."""
        batch = batch_of(self.files, num_rows=num_rows, window_s=window_s)
        self.batches.add(batch)
        return batch

    def worker(self, batch: BatchState) -> BatchWorker:
        return BatchWorker(batch, files=self.files, batches=self.batches, app_state=self.app_state)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with closing(Stores(tmp_path)) as made:
        yield made


@contextmanager
def full_beyond(num_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond: writes end in the middle, then fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def clock_moved(monkeypatch: pytest.MonkeyPatch, by_s: float) -> Iterator[None]:
    now = time.time
    with monkeypatch.context() as patch:
        patch.setattr(batch_worker.time, "time", lambda: now() + by_s)
        yield


def test_a_save_that_the_disk_has_cut_off_and_the_next_write_every_row_once(stores: Stores) -> None:
    worker = stores.worker(stores.batch(num_rows=1, window_s=9))
    for number in range(9):
        worker._take(Record({"n": number, "text": "x" * 50_000}))
    with full_beyond(200_000), pytest.raises(OSError, match="File too large"):
        asyncio.run(worker.save())
    assert stores.files.path(worker.batch.output_file_id).stat().st_size == 200_000
    asyncio.run(worker.save())
    content = stores.files.path(worker.batch.output_file_id).read_bytes()
    assert [line[:6] for line in content.splitlines()] == [f'{{"n":{number}'.encode() for number in range(9)]
    assert worker.batch.num_output_bytes == len(content)


def test_a_batch_whose_cancelling_cannot_be_written_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        state = new_app_state(cast(Any, FakeEngine()), ServerSettings(), MemoryStore(max_responses=1, max_bytes=1))
        service = BatchService(tmp_path, state)
        service.start()
        batch = batch_of(service.files, num_rows=300, window_s=DAYS_S)
        await service.create(batch)
        with monkeypatch.context() as patch:
            patch.setattr(service.batches, "save", no_room)
            with pytest.raises(OSError, match="No space left"):
                await service.cancel(batch)
        async with asyncio.timeout(30):
            while (ended := service.find("", batch.id)) is None or ended.status is not BatchStatus.COMPLETED:
                await asyncio.sleep(0.01)
        assert ended.completed + ended.failed == 300
        await service.stop()

    def no_room(_batch: BatchState) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    asyncio.run(run())


def test_an_upload_that_finds_no_room_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    with live_server(FakeEngine(), ServerSettings(data_dir=str(tmp_path))) as server:
        files: Any = {"file": ("rows.jsonl", b"x" * 3_000_000)}
        with full_beyond(1_000_000):
            answer = httpx.post(f"{server.url}/v1/files", files=files, data={"purpose": "batch"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
        assert "File too large" in answer.json()["error"]["message"]
        assert str(tmp_path) not in answer.text
        assert list((tmp_path / "files").iterdir()) == []
        assert httpx.post(f"{server.url}/v1/files", files=files, data={"purpose": "batch"}).status_code == 200


@pytest.mark.parametrize("by_s", [-2 * DAYS_S, 2 * DAYS_S])
def test_a_clock_that_is_set_ends_no_batch(stores: Stores, monkeypatch: pytest.MonkeyPatch, by_s: int) -> None:
    worker = stores.worker(stores.batch(num_rows=3, window_s=DAYS_S))
    with clock_moved(monkeypatch, by_s):
        asyncio.run(worker.run())
    assert (worker.batch.status, worker.batch.completed) == (BatchStatus.COMPLETED, 3)
    times = [worker.batch.created_at, *worker.batch.times.values()]
    assert times == sorted(times)


def test_a_batch_whose_window_is_over_expires_whatever_the_clock_does_then(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stores.worker(stores.batch(num_rows=3, window_s=-1))
    with clock_moved(monkeypatch, -2 * DAYS_S):
        asyncio.run(worker.run())
    assert (worker.batch.status, worker.batch.failed) == (BatchStatus.EXPIRED, 3)


def test_pages_are_in_the_order_of_creation_though_the_clock_was_set_back(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for days in (0, -3, 5, -9):
        with clock_moved(monkeypatch, days * DAYS_S):
            made.append(stores.batch(num_rows=1, window_s=DAYS_S))
    first, second = made[::-1][:2], made[::-1][2:]
    assert stores.batches.page("", after=None, limit=2) == first
    assert stores.batches.page("", after=first[-1].id, limit=2) == second
    files = stores.files.page("", purpose=None, after=None, limit=9, is_newest_first=True)
    assert [file.id for file in files] == [batch.input_file_id for batch in made[::-1]]


def who_may_not_write() -> list[str]:
    """In front of a command: without the right of root to write where nobody may."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed, and root may write everywhere")
    return ["setpriv", "--bounding-set=-dac_override"]


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    folder.chmod(0o500)
    try:
        yield folder
    finally:
        folder.chmod(0o700)


def run(module: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [*who_may_not_write(), sys.executable, "-m", module, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def test_a_command_says_that_its_folder_cannot_be_written(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request(0)])
    (tmp_path / "out").mkdir()
    with read_only(tmp_path / "out") as folder:
        ended = run("openai_api", "batch", str(source), "-o", str(folder / "out.jsonl"))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert f"{folder / 'out.jsonl'}.journal: unable to open database file" in line
    assert list(folder.iterdir()) == []
