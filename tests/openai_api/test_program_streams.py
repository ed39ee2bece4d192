"""The server as a program where a stream, a module or a signal is not as usual: it serves on, or says why not."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from openai_api import machine_memory
from openai_api.app import create_app
from openai_api.machine_memory import MemoryLimit, memory_limit
from openai_api.run import HttpServer, main, server_config
from openai_api.settings import ServerSettings
from openai_api.sockets import listen_on_port
from tests.gemma3.program import run_main
from tests.gemma3.without_unix import hide_unix
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import chat_body, wait_until
from tests.openai_api.test_program import CHAT, ROOT, Program, program, ready_line


def answers(server: Program) -> bool:
    return httpx.post(server.url + CHAT, json=chat_body()).status_code == 200


def end(server: Program) -> int:
    server.process.send_signal(signal.SIGTERM)
    return server.wait()


def redirected(redirection: str) -> Sequence[str]:
    """A wrapper for ``program`` that starts it with a redirection of the shell."""
    return ("bash", "-c", f'exec "$@" {redirection}', "bash")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_ready_line_that_cannot_be_written_is_told_in_the_log(redirection: str) -> None:
    with program(wrapper=redirected(redirection)) as server:
        wait_until(lambda: "ready_line_not_written" in server.events())
        assert answers(server)
        assert end(server) == 0


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_a_log_that_cannot_be_written_is_no_reason_to_end(redirection: str) -> None:
    process = subprocess.Popen(
        [*redirected(redirection), sys.executable, "-m", "tests.openai_api.serve_fake", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        server = Program(process, process.stdout.readline().split()[-1])
        assert answers(server)
        assert end(server) == 0
        assert process.stdout.read() == ""


def test_a_hangup_drains_and_a_second_one_changes_nothing() -> None:
    """The shell and the system both send one when a terminal is closed."""
    with program(script={"script": {"token_s": 0.03}}) as server:
        ready_line(server)
        with httpx.stream("POST", server.url + CHAT, json=chat_body(stream=True), timeout=20) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "draining" in server.events())
            server.process.send_signal(signal.SIGHUP)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.wait() == 0


def test_nohup_is_heeded() -> None:
    with program(wrapper=["nohup"]) as server:
        ready_line(server)
        server.process.send_signal(signal.SIGHUP)
        assert answers(server)
        assert end(server) == 0


def test_listening_is_told_when_connections_are_taken() -> None:
    listeners = listen_on_port("127.0.0.1", 0)
    told = []

    def probe() -> None:
        with socket.create_connection(listeners.sockets[0].getsockname(), timeout=5):
            told.append(True)
        server.should_exit = True

    settings = ServerSettings()
    server = HttpServer(server_config(create_app(FakeEngine(), settings), settings), on_listening=probe)
    asyncio.run(server.serve(sockets=list(listeners.sockets)))
    assert told == [True]


class StopsWhileLoading(FakeEngine):
    async def start(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)


def test_what_still_loads_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the interpreter taken apart under it."""
    ends: list[int] = []
    monkeypatch.setattr("openai_api.run.os._exit", ends.append)
    assert main(["--port", "0"], engine_builder=lambda _flags: StopsWhileLoading()) == 0
    assert ends == [0]


def test_options_that_exclude_each_other_are_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--port", "0", "--max-num-seqs", "1000"], program="main.py serve") == 2
    (line,) = capsys.readouterr().err.splitlines()
    words = "main.py serve: error: --max-num-batched-tokens 512 must be at least --max-num-seqs 1000 + 16"
    assert line.startswith(words)


def test_main_py_serve_goes_by_that_name() -> None:
    run = run_main("serve", "--max-num-seqs", "0")
    assert run.status == 2
    assert run.err == "main.py serve: error: argument --max-num-seqs: '0' is not an integer from 1 to 4096\n"
    run = run_main("serve", "--version")
    assert (run.status, run.out.split()[0]) == (0, "gemma3-270m-server")


@pytest.mark.parametrize(
    "words", [["main.py"], ["query_fastapi.py"], ["-m", "openai_api"], ["-m", "openai_api.run"]], ids=str
)
def test_ctrl_c_while_modules_are_imported_is_quiet(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{':'.join(path for path in sys.path if path)}"}
    run = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, timeout=30)
    assert (run.returncode, run.stderr) in [(-signal.SIGINT, b""), (130, b"")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_system_without_unixs_own(tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_unix(monkeypatch, tmp_path)
    with program("--kv-cache-memory", "64MiB") as server:
        ready_line(server)
        assert answers(server)
        server.process.send_signal(number)
        assert server.wait() == 0
        assert "stopped" in server.events()
    assert "Traceback" not in str(server.log)


def test_unix_sockets_are_refused_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_unix(monkeypatch, tmp_path)
    run = run_main("serve", "--uds", str(tmp_path / "socket"))
    assert (run.status, len(run.err.splitlines())) == (2, 1)
    assert "this system has no Unix sockets" in run.err


def test_the_lowest_limit_of_memory_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_memory, "_machine", lambda: MemoryLimit(300, "machine"))
    monkeypatch.setattr(machine_memory, "_process", lambda: None)
    limit_file = tmp_path / "memory.max"
    monkeypatch.setattr(machine_memory, "_CONTAINER_LIMITS", (tmp_path / "missing", limit_file))
    for text, expected in (("max\n", 300), ("200\n", 200), ("9223372036854771712\n", 300)):
        limit_file.write_text(text)
        limit = memory_limit()
        assert limit is not None
        assert limit.num_bytes == expected
