"""openai-node, Anthropic's, the AI SDK and ollama-js, unmodified, against a live server with the real base model."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.openai_api.npm import with_packages
from tests.openai_api.real_server import RealServer
from tests.openai_api.test_clients_page import Snippet, printed_by_node, snippets

SOURCES = Path(__file__).parent / "node_clients"
MODEL = "gemma-3-270m"
ANNA = {"name": "Anna", "age": 34}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the script and the packages that it needs."""
    return with_packages(SOURCES, tmp_path_factory.mktemp("node_clients"))


def told_by(script: str, folder: Path, base_url: str) -> dict[str, Any]:
    """By way of asking, what the client made of the answer."""
    command = ["node", script, base_url, MODEL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {line["way"]: line["answer"] for line in map(json.loads, done.stdout.splitlines())}


def test_objects_and_tools(folder: Path, server: RealServer) -> None:
    told = told_by("clients.mjs", folder, f"{server.url}/v1")
    ways = ("openai parse", "openai stream", "generateObject", "streamObject", "generateText", "streamText")
    assert told == dict.fromkeys(ways, ANNA) | {"two steps": "Anna is saved"}


@pytest.mark.parametrize("snippet", snippets("js"), ids=lambda snippet: snippet.title)
def test_clients_page(folder: Path, server: RealServer, snippet: Snippet) -> None:
    """What docs/clients.md shows."""
    assert printed_by_node(snippet, server.url, folder).strip() == snippet.printed.strip()


def test_responses(folder: Path, server: RealServer) -> None:
    told = told_by("responses.mjs", folder, f"{server.url}/v1")
    ways = ("create", "parse", "stream", "call", "generateObject", "streamObject", "generateText", "streamText")
    assert told == dict.fromkeys(ways, ANNA) | {
        "loop": True,
        "items": ["message"] * 3 + ["function_call", "function_call_output"],
        "deleted": 404,
        "two steps": "Anna is saved",
    }


def test_anthropic(folder: Path, server: RealServer) -> None:
    told = told_by("anthropic.mjs", folder, server.url)
    for way in ("generateObject", "streamObject"):  # by a forced tool, which the example does not show
        assert set(told.pop(way)) == set(ANNA)
    ways = ("create", "stream", "generateText", "streamText")
    assert told == dict.fromkeys(ways, ANNA) | {"two steps": "Anna is saved"}


def test_ollama_js(folder: Path, server: RealServer) -> None:
    told = told_by("ollama.mjs", folder, server.url)
    for way in ("chat", "generate"):
        assert told[f"{way} stream"] == {"text": told[way], "done": True, "hasCounts": True}
    assert "Paris" in told["chat"]
    assert told["format"]["name"] in ("Paris", "Rome")
    assert told["list"] == told["ps"] == [f"{MODEL}:latest"]
    assert (told["tools"], told["show"], told["pull"]) == ("string", ["completion", "tools"], "success")
    assert (told["unknown model"]["status"], told["embed"]["status"]) == (404, 400)
    assert "This server makes no embeddings" in told["embed"]["message"]
