"""``python -m openai_api.run`` as a process: flags, loading, the ready line, draining, logs."""

import argparse
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from engine.engine_options import EngineOptions
from openai_api import command_line
from openai_api.access_flags import settings_from
from openai_api.command_line import engine_options, parse_flags
from openai_api.flag_values import parse_size
from openai_api.machine_memory import MemoryLimit
from openai_api.run import main
from openai_api.sockets import MAX_SOCKET_PATH_BYTES
from tests.openai_api.fake_engine import TEXT
from tests.openai_api.harness import chat_body, events_of, wait_until

ROOT = Path(__file__).resolve().parents[2]
CHAT = "/v1/chat/completions"


@dataclass
class Program:
    process: subprocess.Popen[str]
    url: str
    log: list[dict[str, Any]] = field(default_factory=list)

    def events(self) -> list[str]:
        return [record["event"] for record in self.log]

    def wait(self, timeout_s: float = 30) -> int:
        return self.process.wait(timeout=timeout_s)


@contextmanager
def program(
    *flags: str, script: dict[str, Any] | None = None, drain_s: float = 30, wrapper: Sequence[str] = ()
) -> Iterator[Program]:
    """Started, listening (from its log), perhaps still loading; ``wrapper`` is a command that starts it."""
    environment = {**os.environ, "FAKE_SCRIPT": json.dumps(script or {}), "DRAIN_S": str(drain_s)}
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-m", "tests.openai_api.serve_fake", "--port", "0", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Program(process, "")
    reader = threading.Thread(target=_read_log, args=(running,))
    reader.start()
    try:
        wait_until(lambda: running.url or process.poll() is not None, timeout_s=20)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def _read_log(running: Program) -> None:
    assert running.process.stderr is not None
    for line in running.process.stderr:
        record = json.loads(line) if line.startswith("{") else {"event": line.rstrip()}
        running.log.append(record)
        if record["event"] == "listening":
            running.url = record["address"]


def ready_line(running: Program) -> str:
    assert running.process.stdout is not None
    return running.process.stdout.readline()


def test_the_socket_answers_while_the_model_loads() -> None:
    with program(script={"load_s": 0.8}) as server:
        health = httpx.get(f"{server.url}/health")
        assert (health.status_code, health.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"{server.url}/live").status_code == 200
        refused = httpx.post(server.url + CHAT, json=chat_body())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert ready_line(server) == f"Ready: gemma-3-270m-it at {server.url}\n"
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.post(server.url + CHAT, json=chat_body()).json()["choices"][0]["message"]["content"] == TEXT
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize(("error", "status"), [("ValueError", 2), ("OSError", 2), ("RuntimeError", 1)])
def test_a_model_that_does_not_load_ends_the_program(error: str, status: int) -> None:
    with program(script={"load_s": 0.2, "load_error": error}) as server:
        assert server.wait() == status
    line = "openai_api.run: error: the weights are not there"
    assert (line in server.events()) == (status == 2)
    assert ("load_failed" in server.events()) == (status == 1)


def test_an_engine_that_fails_for_good_ends_the_program() -> None:
    """So that a supervisor starts it again: no process that is there and answers nothing."""
    with program(script={"fails_after_s": 0.3}) as server:
        assert server.wait() == 1
    assert "engine_failed" in server.events()


def test_an_engine_that_fails_while_draining_changes_nothing() -> None:
    with program(script={"fails_after_s": 0.5, "script": {"token_s": 0.03}}) as server:
        ready_line(server)
        with httpx.stream("POST", server.url + CHAT, json=chat_body(stream=True), timeout=20) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            assert list(lines)[-2] == "data: [DONE]"
        assert server.wait() == 0
    assert "engine_failed" not in server.events()


def test_a_signal_drains() -> None:
    """Running streams finish; new requests and /health get 503 meanwhile; the exit status is 0."""
    with program(script={"script": {"token_s": 0.03}}) as server:
        ready_line(server)
        with httpx.stream("POST", server.url + CHAT, json=chat_body(stream=True), timeout=20) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 503)
            assert httpx.get(f"{server.url}/live").status_code == 200
            refused = httpx.post(server.url + CHAT, json=chat_body())
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
            assert "retry-after" in refused.headers
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.wait() == 0
    assert [event for event in server.events() if event in {"listening", "draining", "stopped"}] == [
        "listening",
        "draining",
        "stopped",
    ]


def test_what_runs_at_the_drain_deadline_gets_an_error() -> None:
    with program(script={"script": {"token_s": 1.0}}, drain_s=0.5) as server:
        ready_line(server)
        results: list[httpx.Response] = []

        def ask(stream: bool) -> None:
            results.append(httpx.post(server.url + CHAT, json=chat_body(stream=stream), timeout=20))

        threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False)]
        for thread in threads:
            thread.start()
        wait_until(lambda: "num_requests_running 2.0" in httpx.get(f"{server.url}/metrics").text)
        time.sleep(1.2)  # the stream has begun
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - begin < 30  # the answer would take a minute
        for thread in threads:
            thread.join()
    by_status = {result.status_code: result for result in results}
    assert json.loads(events_of(by_status[200].text)[-1])["error"]["code"] == "not_ready"
    assert by_status[503].json()["error"]["code"] == "not_ready"


def test_a_second_signal_ends_at_once() -> None:
    with program(script={"script": {"token_s": 30}}) as server:
        ready_line(server)
        with httpx.Client(base_url=server.url, timeout=20) as client:
            thread = threading.Thread(target=_ask_and_fail, args=(client,))
            thread.start()
            wait_until(lambda: "num_requests_running 1.0" in httpx.get(f"{server.url}/metrics").text)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "draining" in server.events())
            begin = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 128 + signal.SIGTERM
            assert time.monotonic() - begin < 15  # the drain, and the next token, take 30 s
            thread.join()


def _ask_and_fail(client: httpx.Client) -> None:
    with pytest.raises(httpx.HTTPError):
        client.post(CHAT, json=chat_body())


def test_a_signal_while_loading() -> None:
    with program(script={"load_s": 60}) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    for _ in range(2):  # the second finds what the first, killed, left behind
        with program("--uds", str(path)) as server:
            assert ready_line(server) == f"Ready: gemma-3-270m-it at unix:{path}\n"
            assert path.stat().st_mode & 0o777 == 0o600
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
                assert client.get("/health").status_code == 200
            if not path.with_suffix(".seen").exists():
                path.with_suffix(".seen").touch()
                server.process.kill()
                continue
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0
    assert not path.exists()


def test_keys_and_logs(tmp_path: Path) -> None:
    """No prompt, answer or key is ever written."""
    key_file = tmp_path / "keys"
    key_file.write_text("file-sesame-1\nfile-sesame-2\n")
    with program("--api-key", "flag-sesame", "--api-key-file", str(key_file), "--log-level", "debug") as server:
        ready_line(server)
        for key, status in (("flag-sesame", 200), ("file-sesame-2", 200), ("wrong-sesame", 401)):
            headers = {"authorization": f"Bearer {key}", "x-request-id": "my-id"}
            secret = {"messages": [{"role": "user", "content": "my secret prompt"}], "user": "my secret user"}
            body = {**chat_body(), **secret}
            assert httpx.post(server.url + CHAT, json=body, headers=headers).status_code == status
            httpx.post(
                server.url + CHAT, content=b'{"my secret', headers={**headers, "content-type": "application/json"}
            )
            httpx.get(f"{server.url}/my-secret-path?my-secret-query", headers=headers)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    text = json.dumps(server.log)
    assert not any(word in text for word in ("secret", "sesame", "Hello, w"))
    requests = [record for record in server.log if record["event"] == "request"]
    assert len(requests) == 9
    assert set(requests[0]) == {"time", "level", "event", "request_id", "method", "route", "status", "duration_ms"}
    assert requests[0]["route"] == CHAT
    assert requests[0]["request_id"] == "my-id"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "70000"], "not a port"),
        (["--port", "x"], "not a port"),
        (["--threads", "0"], "not an integer from 1"),
        (["--max-num-seqs", "-1"], "not an integer from 1"),
        (["--max-num-seqs", "5000"], "'5000' is not an integer from 1 to 4096"),
        (["--max-num-batched-tokens", "1" * 5000], "is not an integer from 1 to 65536"),
        (["--max-model-len", "1" * 5000], "not an integer from 1"),
        (["--kv-cache-memory", "lots"], "not a size"),
        (["--kv-cache-memory", "9" * 400], "not a size"),
        (["--kv-cache-memory", "99999999GiB"], "'99999999GiB' is more than"),
        (["--kv-cache-memory", "9" * 24], "is more than"),
        (["--served-model-name", "a\udcff"], "bytes that are no UTF-8 text"),
        (["--dtype", "float16"], "invalid choice"),
        (["--device", "tpu"], "not auto, cpu, cuda or cuda:N"),
        (["--quantization", "int2"], "invalid choice"),
        (["--no-such-flag"], "unrecognized arguments"),
        (["--host", "0.0.0.0"], "--api-key"),
        (["--host", "::"], "--api-key"),
        (["--host", "no.such.host.invalid"], "no address"),
        (["--host", ""], "--host '' is no address"),
        (["--api-key", "with space"], "a key of --api-key, --api-key-file or GEMMA3_API_KEY is not"),
        (["--api-key", ""], "printable"),
        (["--api-key-file", "/no/such/file"], "'/no/such/file' cannot be read: No such file"),
        (["--api-key-file", ""], "'' cannot be read"),
        (["--uds", "/no/such/folder/socket"], "cannot listen"),
        (["--uds", ""], "argument --uds: '' is no path"),
        (["--uds", "x" * 120], f"--uds has 120 bytes; a socket's path may have {MAX_SOCKET_PATH_BYTES} at most"),
    ],
)
def test_bad_options_are_one_line_and_status_2(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("openai_api.run: error: ")
    assert words in line


def no_engine(_flags: argparse.Namespace) -> NoReturn:
    pytest.fail("wrong options got as far as to the engine")


def status_of(flags: list[str]) -> int:
    try:
        return main(flags, engine_builder=no_engine)
    except SystemExit as stop:
        return int(str(stop.code))


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert status_of(["--port", str(other.getsockname()[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot listen on 127.0.0.1" in line


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert status_of(["--uds", str(path)]) == 2
    assert path.read_text() == "data"


def test_settings_from_flags() -> None:
    flags = parse_flags(["--host", "0.0.0.0", "--allow-unauthenticated", "--allowed-host", "a", "--allowed-host", "b"])
    settings = settings_from(flags, {})
    assert (settings.host, settings.allowed_hosts, settings.api_keys) == ("0.0.0.0", ("a", "b"), ())
    assert settings_from(parse_flags(["--host", "0.0.0.0"]), {"GEMMA3_API_KEY": "k"}).api_keys == ("k",)
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"):
        assert settings_from(parse_flags(["--host", host]), {}).host == host


def test_the_defaults_of_the_engine_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "memory_limit", lambda: None)
    assert engine_options(parse_flags([])) == EngineOptions()


@pytest.mark.parametrize(("gib", "mib"), [(0.25, 128), (4.0, 512), (8.0, 1_024), (512.0, 1_024)])
def test_the_kv_cache_suits_the_machine(monkeypatch: pytest.MonkeyPatch, gib: float, mib: int) -> None:
    limit = MemoryLimit(int(gib * 2**30), "this machine's memory")
    monkeypatch.setattr(command_line, "memory_limit", lambda: limit)
    assert engine_options(parse_flags([])).kv_cache_memory == mib << 20


def test_every_engine_flag_reaches_the_engine() -> None:
    given = {
        "model": "m",
        "served_model_name": "name",
        "max_model_len": 100,
        "max_num_seqs": 2,
        "max_num_batched_tokens": 64,
        "kv_cache_memory": 3 * 2**29,
        "quantization": "int4",
        "dtype": "float32",
        "device": "cuda",
        "threads": 2,
        "chat_template": "a file",
        "generation_config": "none",
    }
    argv = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    options = engine_options(parse_flags([*argv, "--no-prefix-caching"]))
    assert options == EngineOptions(**given, prefix_caching=False)  # type: ignore[arg-type]
    without_flag = {"isa", "max_num_waiting", "max_waiting_prompt_tokens"}
    named = {*given, "prefix_caching", *without_flag}
    assert {each.name for each in dataclasses.fields(EngineOptions)} == named


def test_every_help_text_is_a_sentence_with_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags(["--help"])
    text = " ".join(capsys.readouterr().out.split("options:")[1].split())
    entries = re.split(r" (?=--[a-z-]+ (?:[A-Z{]))", text)[1:]
    assert len(entries) >= 18
    for entry in entries:
        assert re.search(r" [A-Z].*default.*\.", entry), entry


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("1", 1), ("512MiB", 2**29), ("1.5 gib", 3 * 2**29), ("2k", 2000), ("1GB", 10**9), ("2 TiB", 2**41)],
)
def test_sizes(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


def test_the_server_needs_neither_torch_nor_an_extra() -> None:
    heavy = {"torch", "opentelemetry.sdk", "requests"}
    code = f"import openai_api.run, openai_api.app, sys; assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
