"""``/v1/files`` and ``/v1/batches``, as openai-python speaks them, over a tiny model."""

import asyncio
import errno
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest

from engine.async_engine import AsyncLLMEngine
from engine.engine_options import EngineOptions
from openai_api.app_state import new_app_state
from openai_api.batch import batch_worker, service
from openai_api.batch.batch_store import BatchStore, new_batch
from openai_api.batch.database import Database
from openai_api.batch.file_store import FileLimits, FileStore
from openai_api.batch.row import Record
from openai_api.response_store import MemoryStore
from openai_api.settings import ServerSettings
from tests.engine.engines import tiny_checkpoint
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import LiveServer, live_server, wait_until
from tests.openai_api.test_batch import request

KEYS = ("first-key-0123456789", "second-key-0123456789")
TYPE = {"authorization": f"Bearer {KEYS[0]}"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("batches") / "tiny"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(checkpoint: str, data: Path) -> Iterator[LiveServer]:
    options = EngineOptions(model=checkpoint, kv_cache_memory=64 << 20, max_num_seqs=8)
    engine = AsyncLLMEngine.from_options(options)
    with live_server(cast(FakeEngine, engine), ServerSettings(data_dir=str(data), api_keys=KEYS)) as live:
        wait_until(lambda: httpx.get(f"{live.url}/health").status_code == 200, timeout_s=60)
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEYS[0], max_retries=0) as made:
        yield made


def upload(client: openai.OpenAI, lines: list[Any], **fields: Any) -> str:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    return client.files.create(file=("rows.jsonl", text.encode()), purpose="batch", **fields).id


UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")


def ended(client: openai.OpenAI, batch_id: str, *, timeout_s: float = 60) -> Any:
    wait_until(lambda: client.batches.retrieve(batch_id).status not in UNFINISHED, timeout_s=timeout_s)
    return client.batches.retrieve(batch_id)


def create(client: openai.OpenAI, file_id: str, **fields: Any) -> Any:
    settings = {"endpoint": "/v1/completions", "completion_window": "24h", **fields}
    return client.batches.create(input_file_id=file_id, **settings)


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_files_are_kept_listed_and_deleted(client: openai.OpenAI) -> None:
    content = os.urandom(200_000)
    stored = client.files.create(
        file=("../../etc/passwd", io.BytesIO(content)),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (stored.bytes, stored.filename, stored.purpose) == (len(content), "../../etc/passwd", "user_data")
    assert stored.expires_at == stored.created_at + 3600
    assert client.files.retrieve(stored.id) == stored
    assert client.files.content(stored.id).content == content
    assert stored in client.files.list(purpose="user_data").data
    assert client.files.delete(stored.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(stored.id)


def test_pages_of_files_have_every_file_once(client: openai.OpenAI) -> None:
    ids = [upload(client, [request(n)]) for n in range(7)]
    for order in ("asc", "desc"):
        told = [file.id for file in client.files.list(limit=3, order=order, purpose="batch")]
        assert [each for each in told if each in ids] == (ids if order == "asc" else ids[::-1])
        assert len(told) == len(set(told))


def test_a_batch_is_answered_as_its_requests_are_alone(client: openai.OpenAI) -> None:
    rows = [request(n) for n in range(30)]
    rows[7]["body"]["temperature"] = -1
    batch = create(client, upload(client, rows), metadata={"of": "the night"})
    assert batch.status == "validating"
    batch = ended(client, batch.id)
    assert (batch.status, batch.metadata) == ("completed", {"of": "the night"})
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (30, 29, 1)
    answers = lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in answers] == [f"r{n}" for n in range(30) if n != 7]
    for line, row in zip(answers, [row for row in rows if row is not rows[7]], strict=True):
        alone = client.post("/completions", body=row["body"], cast_to=dict[str, Any])
        assert line["response"]["body"]["choices"] == alone["choices"]
    (error,) = lines_of(client, batch.error_file_id)
    assert error["custom_id"] == "r7"
    assert error["response"]["body"]["error"]["param"] == "temperature"
    assert client.batches.list(limit=1).data[0].id == batch.id


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        (["no JSON"], "invalid_line", 1),
        ([request(0), {**request(1), "url": "/v1/chat/completions"}], "invalid_line", 2),
        ([request(0), request(1), request(0)], "duplicate_custom_id", 3),
        ([request(0), "[1]"], "invalid_line", 2),
        ([request(0), "", "", "[1]"], "invalid_line", 4),  # as an editor counts
        ([""], "empty_file", None),
    ],
)
def test_a_file_that_is_no_batch_fails_with_its_lines(
    client: openai.OpenAI, lines: list[Any], code: str, line: int | None
) -> None:
    batch = ended(client, create(client, upload(client, lines)).id)
    assert batch.status == "failed"
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, line)
    assert batch.output_file_id is None


def test_a_cancelled_batch_keeps_what_it_has(client: openai.OpenAI) -> None:
    rows = [request(n, max_tokens=200) for n in range(300)]
    batch = create(client, upload(client, rows))
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed > 3)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = ended(client, batch.id)
    assert batch.status == "cancelled"
    told = lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in told] == [f"r{n}" for n in range(len(told))]
    assert 0 < batch.request_counts.completed == len(told) < 300
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(ended(client, create(client, upload(client, [request(0)])).id).id)


def test_nobody_finds_another_s(client: openai.OpenAI, server: LiveServer) -> None:
    file_id = upload(client, [request(0)])
    batch = create(client, file_id)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEYS[1], max_retries=0) as other:
        for call in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                call(file_id)
        for find in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                find(batch.id)
        with pytest.raises(openai.BadRequestError):
            create(other, file_id)
        assert file_id not in [file.id for file in other.files.list()]
        assert batch.id not in [each.id for each in other.batches.list()]
    assert ended(client, batch.id).status == "completed"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"content-type": "application/json"}, 415),
        (b"", {"content-type": "multipart/form-data"}, 415),
        (b"", {"content-type": "multipart/form-data; boundary=x"}, 400),
        (b"not a form", {"content-type": "multipart/form-data; boundary=x"}, 400),
        (b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n', {}, 400),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n', {}, 400),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--x--\r\n', {}, 400),
        (b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"b" * 5000 + b"\r\n--x--\r\n", {}, 400),
        (b"--x\r\nContent-Disposition: " + b"b" * 50_000 + b"\r\n\r\n\r\n--x--\r\n", {}, 400),
    ],
)
def test_hostile_uploads_are_clear_errors_and_leave_nothing(
    server: LiveServer, client: openai.OpenAI, body: bytes, headers: dict[str, str], status: int
) -> None:
    before = [file.id for file in client.files.list(limit=1000)]
    headers = {"content-type": "multipart/form-data; boundary=x", **TYPE, **headers}
    answer = httpx.post(f"{server.url}/v1/files", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert [file.id for file in client.files.list(limit=1000)] == before


def test_an_upload_that_is_announced_too_large_or_ends_early_leaves_nothing(
    server: LiveServer, client: openai.OpenAI, data: Path
) -> None:
    def sent(num_bytes: int, body: bytes) -> bytes:
        head = f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: {TYPE['authorization']}\r\n"
        head += f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {num_bytes}\r\n\r\n"
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            return connection.recv(1000) if num_bytes > 10**9 else b""

    before = set((data / "files").iterdir())
    assert b" 413 " in sent(10**10, b"")
    sent(1000, b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf of it')
    wait_until(lambda: set((data / "files").iterdir()) == before)
    assert client.files.list().data is not None


def test_a_disk_that_is_full_for_a_while_loses_nothing(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, num_failures = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal num_failures
        if num_failures < 3:
            num_failures += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(service, "RETRY_S", 0.05)
    monkeypatch.setattr(batch_worker, "SAVE_INTERVAL_S", 0.0)
    file_id = upload(client, [request(n) for n in range(20)])
    monkeypatch.setattr(os, "fsync", full)
    batch = ended(client, create(client, file_id).id)
    assert num_failures == 3
    assert batch.status == "completed"
    assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == [f"r{n}" for n in range(20)]


def test_two_servers_never_share_a_folder(server: LiveServer, checkpoint: str, data: Path) -> None:
    command = serving(checkpoint, data)
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "another server is using it" in refused.stderr


def test_without_a_data_folder_files_say_what_is_missing(checkpoint: str) -> None:
    engine = AsyncLLMEngine.from_options(EngineOptions(model=checkpoint, kv_cache_memory=64 << 20))
    with live_server(cast(FakeEngine, engine), ServerSettings()) as live:
        answer = httpx.get(f"{live.url}/v1/files")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_data_dir")
        assert "--data-dir" in answer.json()["error"]["message"]


def test_a_save_that_is_left_behind_and_the_next_write_every_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a batch is cancelled while the disk is slow."""
    database = Database(tmp_path / "database")
    files, batches = FileStore(tmp_path / "files", database, FileLimits()), BatchStore(database)
    batch = new_batch(
        "", endpoint="/v1/completions", input_file_id="f", window="24h", window_s=9, metadata=None, output_lives_s=None
    )
    batches.add(batch)
    app_state = new_app_state(cast(Any, FakeEngine()), ServerSettings(), MemoryStore(max_responses=1, max_bytes=1))
    worker = batch_worker.BatchWorker(batch, files=files, batches=batches, app_state=app_state)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (time.sleep(0.1), fsync(handle)))

    async def main() -> None:
        worker._take(Record({"custom_id": "r0"}))
        first = asyncio.create_task(worker.save())
        await asyncio.sleep(0.02)
        first.cancel()
        await worker.save()

    asyncio.run(main())
    content = files.path(batch.output_file_id).read_bytes()
    assert content == b'{"custom_id":"r0"}\n'
    assert worker.batch.num_output_bytes == len(content)
    database.close()


def test_the_bytes_of_files_whose_time_is_over_are_free_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "database")
    files = FileStore(tmp_path / "files", database, FileLimits(max_num_files=1))
    new = files.begin()
    new.write(b"x")
    files.add(new, owner="", filename="a", purpose="batch", lives_s=-1)
    files.begin().discard()
    assert list((tmp_path / "files").iterdir()) == []
    database.close()


def serving(checkpoint: str, data: Path) -> list[str]:
    program = [sys.executable, "-m", "openai_api", "serve"]
    return [*program, "--model", checkpoint, "--port", "0", "--data-dir", str(data)]


class Process:
    """A server that can be killed."""

    def __init__(self, checkpoint: str, data: Path) -> None:
        command = serving(checkpoint, data)
        command += ["--kv-cache-memory", "64MiB", "--log-level", "error", "--max-num-seqs", "8"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


def survive(checkpoint: str, data: Path, *, num_kills: int, num_rows: int) -> None:
    rows = [request(n) for n in range(num_rows)]
    rng = random.Random(num_kills)
    running = Process(checkpoint, data)
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="x") as client:
        batch_id = create(client, upload(client, rows)).id
    for _ in range(num_kills):
        time.sleep(rng.uniform(0.05, 1.6))  # what was computed is saved once a second
        running.end(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        running = Process(checkpoint, data)
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="x") as client:
        batch = ended(client, batch_id, timeout_s=600)
        assert batch.status == "completed"
        told = lines_of(client, batch.output_file_id)
        assert [line["custom_id"] for line in told] == [row["custom_id"] for row in rows]
        undisturbed = ended(client, create(client, batch.input_file_id).id, timeout_s=600)
        expected = lines_of(client, undisturbed.output_file_id)
        choices = [[line["response"]["body"]["choices"] for line in lines] for lines in (told, expected)]
        assert choices[0] == choices[1]
    running.end(signal.SIGTERM)


def test_a_batch_survives_kills(checkpoint: str, tmp_path: Path) -> None:
    survive(checkpoint, tmp_path / "data", num_kills=2, num_rows=400)


@pytest.mark.soak
def test_a_batch_survives_a_hundred_kills(checkpoint: str, tmp_path: Path) -> None:
    survive(checkpoint, tmp_path / "data", num_kills=100, num_rows=20_000)
