"""The little client ``query_fastapi.py`` against a live server with a scripted engine, and against none."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from engine.errors import StepError
from gemma3.text.chat import Message
from openai_api import ask
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import LiveServer, live_server

ROOT = Path(__file__).resolve().parents[2]
NO_URLS = ("", "ftp://localhost", "http://", "http://[::", "not a url", "http://localhost:99999")


@pytest.fixture
def live() -> Iterator[LiveServer]:
    with live_server(FakeEngine(), ServerSettings()) as server:
        yield server


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_an_answer(live: LiveServer, capsys: pytest.CaptureFixture[str], stream: list[str]) -> None:
    flags = ["--prompt", "Hi", "--system", "Be brief.", "--max-tokens", "50", "--temperature", "0.5"]
    assert ask.main(["--url", live.url, *stream, *flags]) == 0
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert err == "[35 prompt tokens, 29 answer tokens]\n"
    assert live.engine.rendered == [[Message("system", "Be brief."), Message("user", "Hi")]]
    params = live.engine.calls[0].params
    assert (params.max_tokens, params.temperature) == (50, 0.5)


def test_json(live: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["--url", live.url, "--json", "--model", MODEL_ID]) == 0
    assert json.loads(capsys.readouterr().out)["choices"][0]["message"]["content"] == TEXT
    assert ask.main(["--url", live.url, "--json", "--stream"]) == 0
    chunks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert chunks[-1]["usage"]["completion_tokens"] == 29


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_schema_and_choices(
    live: LiveServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, stream: list[str]
) -> None:
    file = tmp_path / "schema.json"
    file.write_text('\ufeff{"properties": {"z": {}, "\u00e9": {}}}', encoding="utf-8")
    assert ask.main(["--url", live.url, *stream, "--schema", str(file)]) == 0
    assert ask.main(["--url", live.url, *stream, "--choice", "yes", "--choice", "no"]) == 0
    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}\n"
    assert [spec.text for spec in live.engine.compiled] == [
        '{"properties":{"z":{},"\u00e9":{}},"additionalProperties":false}',
        'start: CHOICE\nCHOICE: "yes" | "no"',
    ]
    file.write_text('{"const": "impossible"}')
    assert ask.main(["--url", live.url, *stream, "--schema", str(file)]) == 1
    assert "answered 400: Invalid value for 'response_format.json_schema.schema': it is" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"const": NaN}', '{"const": "\\ud800"}', "[" * 100_000, "\udcff"], ids=ascii)
def test_what_is_no_json_is_no_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    file = tmp_path / "schema.json"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert ask.main(["--schema", str(file)]) == 2
    assert "schema.json is not JSON: " in capsys.readouterr().err


def test_one_shape_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "schema.json"
    file.write_text("{}")
    assert ask.main(["--choice", "a", "--schema", str(file)]) == 2
    assert "argument --schema: not allowed with argument --choice" in capsys.readouterr().err


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for stream in ([], ["--stream"], ["--model", "m"], ["--model", "m", "--stream"]):
            assert ask.main(["--url", url, *stream]) == 3
            assert capsys.readouterr().err == (
                f"gemma3-server ask: error: no server answers at {url}; start one with: gemma3-server serve\n"
            )


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_errors_of_the_server(live: LiveServer, capsys: pytest.CaptureFixture[str], stream: list[str]) -> None:
    url = ["--url", live.url, *stream]
    assert ask.main([*url, "--temperature", "3"]) == 1
    assert "the server answered 400: Invalid value for 'temperature'" in capsys.readouterr().err
    assert ask.main([*url, "--model", "gpt-4"]) == 1
    assert "the server answered 404" in capsys.readouterr().err
    live.engine.script = Script(fail=StepError("x"), fail_at=3)
    assert ask.main(url) == 1
    assert "failed on this request" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--max-tokens", "many"], "--max-tokens/--max-new-tokens: invalid int value: 'many'"),
        (["--no-such-flag"], "unrecognized arguments"),
        (["--temperature", "nan"], "--temperature nan"),
        (["--prompt", " "], "the prompt is empty"),
        (["--prompt", "bad \udcff"], "holds bytes that are no UTF-8 text"),
        (["--system", "bad \udcff"], "holds bytes that are no UTF-8 text"),
        (["--model", "bad \udcff"], "holds bytes that are no UTF-8 text"),
        (["--choice", "ok", "--choice", "bad \udcff"], "holds bytes that are no UTF-8 text"),
        (["--schema", "no-such-file"], "--schema: no-such-file cannot be read: No such file"),
        (["--schema", "query_fastapi.py"], "--schema: query_fastapi.py is not JSON: "),
        (["--schema", "docs", "--stream"], "--schema: docs cannot be read: Is a directory"),
        (["--choice", "a", "--schema", os.devnull], "/dev/null is not JSON"),
        (["--api-key", "\u00e9"], "--api-key is ASCII"),
        (["--api-key", "a\nb"], "--api-key is ASCII"),
        *((["--url", url], "is no address such as http://127.0.0.1:8000") for url in NO_URLS),
    ],
    ids=ascii,
)
def test_wrong_use_is_one_line_and_status_2(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert ask.main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gemma3-server ask: error: ")
    assert words in line


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_with_and_without_v1(live: LiveServer, capsys: pytest.CaptureFixture[str], end: str) -> None:
    assert ask.main(["--url", live.url.removeprefix("http://") + end]) == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_a_path_before_v1_stays() -> None:
    assert str(ask.server_url("https://gemma.example/model/v1/")) == "https://gemma.example/model"


def test_no_proxy_leads_to_this_machine(
    live: LiveServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask.main(["--url", live.url]) == 0
    for host in ("localhost", "[::ffff:127.0.0.1]"):
        assert ask.main(["--url", live.url.replace("127.0.0.1", host)]) == 0
    assert ask.main(["--url", live.url.replace("127.0.0.1", "0.0.0.0")]) == 1
    assert "does not answer to that Host header" in capsys.readouterr().err
    assert ask.main(["--url", "http://gemma.example"]) == 3  # the proxy, at which nobody answers
    capsys.readouterr()
    monkeypatch.setenv("HTTP_PROXY", "junk://")
    monkeypatch.setenv("http_proxy", "junk://")
    assert ask.main(["--url", "http://gemma.example"]) == 2
    assert "HTTP_PROXY cannot be used: Unknown scheme" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_what_is_no_such_server(capsys: pytest.CaptureFixture[str], stream: list[str]) -> None:
    for status, body in ((200, "<html>"), (404, "<html>"), (200, '{"data": []}'), (500, '{"error": "x"}')):
        with odd_server(status, body) as url:
            assert ask.main(["--url", url, *stream]) == 1
            assert "does not look like an OpenAI-compatible server" in capsys.readouterr().err


@contextmanager
def odd_server(status: int, body: str) -> Iterator[str]:
    """It answers everything with ``body``; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("redirection", "status", "err"),
    [
        (">/dev/full", 2, "query_fastapi.py: error: the standard output cannot be written: No space left on device\n"),
        (">&-", 2, "query_fastapi.py: error: the standard output cannot be written: Bad file descriptor\n"),
        ("2>&-", 0, ""),
        ("--stream > >(head -c 5 >/dev/null)", 141, ""),
        ("--prompt - <&-", 2, "query_fastapi.py: error: the standard input cannot be read: Bad file descriptor\n"),
        (
            "--help >/dev/full",
            2,
            "query_fastapi.py: error: the standard output cannot be written: No space left on device\n",
        ),
    ],
)
def test_streams_that_cannot_be_used(live: LiveServer, redirection: str, status: int, err: str) -> None:
    live.engine.script = Script(text="word " * 40, token_s=0.01)
    command = f'exec "$0" query_fastapi.py --url {live.url} {redirection}'
    run = subprocess.run(["bash", "-c", command, sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (status, err)


def test_the_prompt_from_the_standard_input(live: LiveServer) -> None:
    command = [sys.executable, "query_fastapi.py", "--url", live.url, "--prompt", "-"]
    run = subprocess.run(command, cwd=ROOT, input=b"Two\nlines\n", capture_output=True, timeout=60)
    assert (run.returncode, run.stdout.decode()) == (0, TEXT + "\n")
    assert live.engine.rendered == [[Message("user", "Two\nlines")]]
    run = subprocess.run(command, cwd=ROOT, input=b"bad \xff", capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (
        2,
        b"query_fastapi.py: error: the standard input holds bytes that are no UTF-8 text\n",
    )


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gemma3-270m-server")
