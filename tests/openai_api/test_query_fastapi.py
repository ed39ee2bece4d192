"""The little client ``query_fastapi.py`` against a live server with a scripted engine, and against none."""

import json
import socket
from collections.abc import Iterator

import pytest

import query_fastapi
from engine.errors import StepError
from gemma3.text.chat import Message
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import LiveServer, live_server

FIGURES = "answer tokens]\n"


@pytest.fixture
def live() -> Iterator[LiveServer]:
    with live_server(FakeEngine(), ServerSettings()) as server:
        yield server


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_an_answer(live: LiveServer, capsys: pytest.CaptureFixture[str], stream: list[str]) -> None:
    flags = ["--prompt", "Hi", "--system", "Be brief.", "--max-tokens", "50", "--temperature", "0.5"]
    assert query_fastapi.main(["--url", live.url, *stream, *flags]) == 0
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert err == "[35 prompt tokens, 29 answer tokens]\n"
    assert live.engine.rendered == [[Message("system", "Be brief."), Message("user", "Hi")]]
    params = live.engine.calls[0].params
    assert (params.max_tokens, params.temperature) == (50, 0.5)


def test_json(live: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert query_fastapi.main(["--url", live.url, "--json", "--model", MODEL_ID]) == 0
    assert json.loads(capsys.readouterr().out)["choices"][0]["message"]["content"] == TEXT
    assert query_fastapi.main(["--url", live.url, "--json", "--stream"]) == 0
    chunks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert chunks[-1]["usage"]["completion_tokens"] == 29


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for stream in ([], ["--stream"], ["--model", "m"], ["--model", "m", "--stream"]):
            assert query_fastapi.main(["--url", url, *stream]) == 3
            assert capsys.readouterr().err == (
                f"query_fastapi.py: no server answers at {url}; start one with: python main.py serve\n"
            )


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_errors_of_the_server(live: LiveServer, capsys: pytest.CaptureFixture[str], stream: list[str]) -> None:
    url = ["--url", live.url, *stream]
    assert query_fastapi.main([*url, "--temperature", "3"]) == 1
    assert "the server answered 400: Invalid value for 'temperature'" in capsys.readouterr().err
    assert query_fastapi.main([*url, "--model", "gpt-4"]) == 1
    assert "the server answered 404" in capsys.readouterr().err
    live.engine.script = Script(fail=StepError("x"), fail_at=3)
    assert query_fastapi.main(url) == 1
    assert "failed on this request" in capsys.readouterr().err


def test_wrong_flags_and_urls(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        query_fastapi.main(["--max-tokens", "many"])
    assert stop.value.code == 2
    capsys.readouterr()
    for url in ("ftp://localhost", "localhost:8000", "http://[::"):
        assert query_fastapi.main(["--url", url]) in {1, 3}
        assert len(capsys.readouterr().err.splitlines()) == 1
