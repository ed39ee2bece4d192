"""Two server processes behind the real nginx with ``deploy/nginx.conf``: what a client sees when a replica starts,
drains or dies.

The engines are scripted; nginx is the machine's own, and without one these tests are skipped.
"""

import asyncio
import getpass
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, TEXT
from tests.openai_api.harness import chat_body, chunks_of, wait_until
from tests.openai_api.test_program import CHAT, ROOT, Program, program, ready_line

CONFIG = ROOT / "deploy" / "nginx.conf"
NAME = "gemma.example.com"
KEYS = ("first-key-0123456789", "second-key-0123456789")
RUNNING = "num_requests_running"

# Where Debian puts it, which is in the path of root alone.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@dataclass
class Balanced:
    url: str
    log: Path
    replicas: list[Program]

    def lines(self) -> list[list[str]]:
        """Of the access log: time, id, method, path, status, seconds, then whom nginx asked and what each said."""
        return [line.split(" ", 6) for line in self.log.read_text().splitlines()]

    def address(self, number: int) -> str:
        return self.replicas[number].url.removeprefix("http://")

    def running_at(self, number: int) -> int:
        text = httpx.get(f"{self.replicas[number].url}/metrics", headers=authorized()).text
        (value,) = re.findall(rf"{RUNNING} (\d+)", text)
        return int(value)


def authorized(key: str = KEYS[0], **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "host": NAME, **more}


@contextmanager
def balanced(folder: Path, *scripts: dict[str, Any], flags: tuple[str, ...] = ()) -> Iterator[Balanced]:
    """As ``docs/scale.md`` says: replicas that know the public name, nginx before them."""
    keys = [word for key in KEYS for word in ("--api-key", key)]
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(program("--allowed-host", NAME, *keys, *flags, script=script)) for script in scripts
        ]
        for replica, script in zip(replicas, scripts, strict=True):
            if not script.get("load_s"):
                ready_line(replica)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        main = configured(folder, port, [replica.url.removeprefix("http://") for replica in replicas])
        process = subprocess.Popen([str(NGINX), "-c", str(main), "-p", str(folder)], stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(url))
            yield Balanced(url, folder / "access.log", replicas)
        finally:
            process.terminate()
            process.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/metrics").status_code == 404  # answered by nginx itself
    except httpx.TransportError:
        return False


def configured(folder: Path, port: int, addresses: list[str]) -> Path:
    """The file of ``deploy/`` with other addresses, and around it what a distribution's ``nginx.conf`` has."""
    text = CONFIG.read_text()
    for old, new in zip(("127.0.0.1:8001", "127.0.0.1:8002"), addresses, strict=True):
        text = text.replace(f"server {old} ", f"server {new} ")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/var/log/nginx/gemma3.log", "access.log")
    (folder / "gemma3.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; user {getpass.getuser()}; worker_processes 2; pid nginx.pid; error_log error.log;"
        f"events {{}} http {{ {paths} include gemma3.conf; }}"
    )
    return main


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    """For tests that leave both replicas alive; answers to their end take long."""
    folder = tmp_path_factory.mktemp("nginx")
    with balanced(folder, *[{"script": {"token_s": 0.01, "text": TEXT * 60}}] * 2) as both:
        yield both


def test_a_stream_arrives_piece_by_piece_and_a_client_that_leaves_is_noticed(pair: Balanced) -> None:
    with httpx.stream("POST", pair.url + CHAT, json=chat_body(stream=True), headers=authorized(), timeout=30) as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert [next(lines)[:6] for _ in range(3)] == ["data: "] * 3
        assert pair.running_at(0) + pair.running_at(1) == 1  # it has not ended: it was passed on as it came
        answer.close()
        wait_until(lambda: pair.running_at(0) + pair.running_at(1) == 0)


def test_the_sdk_and_the_id_of_a_request(pair: Balanced) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    made = {"base_url": f"{pair.url}/v1", "max_retries": 0, "default_headers": {"host": NAME}}
    with openai.OpenAI(api_key=KEYS[0], **made) as client:  # type: ignore[arg-type]
        assert [model.id for model in client.models.list()] == [MODEL_ID]
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL_ID, messages=messages, max_tokens=5, extra_headers={"x-request-id": "mine:1"}
        )
        assert raw.headers["x-request-id"] == "mine:1"
        assert raw.parse().choices[0].message.content == TEXT[:5]
        stream = client.chat.completions.create(model=MODEL_ID, messages=messages, max_tokens=5, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == TEXT[:5]
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong-key-0123456789").models.list()
    wait_until(lambda: "mine:1" in [line[1] for line in pair.lines()])


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"host": NAME, "origin": f"https://{NAME}"}, 200, None),
        ({"host": NAME, "origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"host": "evil.example"}, 403, "host_not_allowed"),
        ({"host": NAME, "x-forwarded-host": "evil.example", "x-request-id": "not one!"}, 200, None),
    ],
)
def test_hosts_and_origins_are_checked_as_without_nginx(
    pair: Balanced, headers: dict[str, str], status: int, code: str | None
) -> None:
    body = chat_body(max_tokens=5)
    answer = httpx.post(pair.url + CHAT, json=body, headers={**authorized(), **headers})
    assert (answer.status_code, answer.json().get("error", {}).get("code")) == (status, code)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_bodies_may_be_as_large_as_without_nginx(pair: Balanced) -> None:
    """Beyond, both say the same."""
    most = ServerSettings().max_body_bytes
    for num_bytes, told in ((most, 400), (most + 1, 413)):
        body = b"{" + b" " * (num_bytes - 1)
        headers = authorized(**{"content-type": "application/json"})
        answer = httpx.post(pair.url + CHAT, content=body, headers=headers, timeout=30)
        assert answer.status_code == told
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_session_stays_on_one_replica_and_others_are_spread(pair: Balanced) -> None:
    def replicas_of(prefix: str, headers: list[dict[str, str]], path: str) -> list[str]:
        ids = [f"{prefix}{number}" for number in range(len(headers))]
        with httpx.Client(headers=authorized()) as client:
            for each, header in zip(ids, headers, strict=True):
                client.get(pair.url + path, headers={**header, "x-request-id": each})
        wait_until(lambda: set(ids) <= {line[1] for line in pair.lines()})
        by_id = {line[1]: line[6].split()[0] for line in pair.lines()}
        return [by_id[each] for each in ids]

    models, files = "/v1/models", "/v1/files"
    both = {pair.address(0), pair.address(1)}
    assert len(set(replicas_of("same", [{"x-session-id": "a"}] * 8, models))) == 1
    assert set(replicas_of("other", [{"x-session-id": str(n)} for n in range(32)], models)) == both
    assert set(replicas_of("none", [{}] * 8, models)) == both
    assert len(set(replicas_of("owner", [{"x-session-id": str(n)} for n in range(8)], files))) == 1


@pytest.mark.slow
def test_what_a_starting_replica_refuses_another_answers(tmp_path: Path) -> None:
    sessions = [{}, *({"x-session-id": str(number)} for number in range(8))]
    with balanced(tmp_path, {"load_s": 600}, {}) as both, httpx.Client(headers=authorized()) as client:
        for session in sessions:
            for is_stream in (False, True):
                answer = client.post(both.url + CHAT, json=chat_body(stream=is_stream), headers=session)
                assert answer.status_code == 200
        wait_until(lambda: len(both.lines()) > 2 * len(sessions))
        assert any("503" in line[6] for line in both.lines())  # it was asked, too


@pytest.mark.slow
def test_where_all_start_the_client_hears_when_to_ask_again(tmp_path: Path) -> None:
    with balanced(tmp_path, {"load_s": 600}, {"load_s": 600}) as both:
        answer = httpx.post(both.url + CHAT, json=chat_body(), headers=authorized())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert "retry-after" in answer.headers


@dataclass
class Load:
    """Clients that ask one thing after the other; ``began_s`` and status of every request, 0 for a broken answer."""

    url: str
    outcomes: list[tuple[float, int]]
    is_over: bool = False

    async def client(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60, headers=authorized()) as client:
            while not self.is_over:
                began_s = time.monotonic()
                self.outcomes.append((began_s, await self.status(client, is_stream=number % 2 == 0)))

    async def status(self, client: httpx.AsyncClient, *, is_stream: bool) -> int:
        try:
            answer = await client.post(CHAT, json=chat_body(stream=is_stream))
            if is_stream and answer.status_code == 200:
                chunks_of(answer.content)
        except (httpx.TransportError, AssertionError):
            return 0
        return answer.status_code


async def under_load(url: str, disturb: Callable[[Load], None]) -> list[tuple[float, int]]:
    """What eight clients saw while ``disturb`` ran in a thread."""
    load = Load(url, [])
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(load.client(number))
        await asyncio.to_thread(wait_until, lambda: len(load.outcomes) > 8)
        await asyncio.to_thread(disturb, load)
        more = len(load.outcomes) + 16
        await asyncio.to_thread(wait_until, lambda: len(load.outcomes) > more)
        load.is_over = True
    return load.outcomes


SLOW = {"script": {"token_s": 0.01}}


@pytest.mark.slow
def test_a_killed_replica_hurts_its_own_requests_alone(tmp_path: Path) -> None:
    gone_s = 0.0

    def kill(_load: Load) -> None:
        nonlocal gone_s
        wait_until(lambda: both.running_at(0) > 0)
        both.replicas[0].process.kill()
        both.replicas[0].wait()
        gone_s = time.monotonic()

    with balanced(tmp_path, SLOW, SLOW) as both:
        outcomes = asyncio.run(under_load(both.url, kill))
        failed = [(began_s, status) for began_s, status in outcomes if status != 200]
        assert 0 < len(failed) <= 8
        assert {status for _, status in failed} <= {0, 502}
        assert all(began_s < gone_s for began_s, _ in failed)


@pytest.mark.slow
def test_a_draining_replica_loses_no_request(tmp_path: Path) -> None:
    def drain(_load: Load) -> None:
        wait_until(lambda: both.running_at(0) > 0)
        both.replicas[0].process.send_signal(signal.SIGTERM)
        assert both.replicas[0].wait() == 0

    with balanced(tmp_path, SLOW, SLOW) as both:
        outcomes = asyncio.run(under_load(both.url, drain))
    assert {status for _, status in outcomes} == {200}
