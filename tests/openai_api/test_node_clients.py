"""openai-node, the AI SDK and ollama-js, unmodified, from the npm registry, against a live server with the real base model."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.openai_api.real_server import RealServer

SOURCES = Path(__file__).parent / "node_clients"
MODEL = "gemma-3-270m"
ANNA = {"name": "Anna", "age": 34}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the script and the packages that it needs."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm or node is not installed")
    folder = tmp_path_factory.mktemp("node_clients")
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"npm could not fetch the clients: {done.stderr.strip()[-200:]}")
    return folder


def told_by(script: str, folder: Path, server: RealServer) -> dict[str, Any]:
    """By way of asking, what the client made of the answer."""
    command = ["node", script, f"{server.url}/v1", MODEL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {line["way"]: line["answer"] for line in map(json.loads, done.stdout.splitlines())}


def test_objects_and_tools(folder: Path, server: RealServer) -> None:
    told = told_by("clients.mjs", folder, server)
    ways = ("openai parse", "openai stream", "generateObject", "streamObject", "generateText", "streamText")
    assert told == dict.fromkeys(ways, ANNA) | {"two steps": "Anna is saved"}


def test_responses(folder: Path, server: RealServer) -> None:
    told = told_by("responses.mjs", folder, server)
    ended = told.pop("second step")
    assert ended in ("stop", "length")
    ways = ("create", "parse", "stream", "call", "generateObject", "streamObject", "generateText", "streamText")
    assert told == dict.fromkeys(ways, ANNA) | {
        "loop": True,
        "items": ["message"] * 3 + ["function_call", "function_call_output"],
        "deleted": 404,
        "two steps": "Anna is saved",
    }


def test_ollama_js(folder: Path, server: RealServer) -> None:
    done = subprocess.run(
        ["node", "ollama.mjs", server.url, MODEL], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = {line["way"]: line["answer"] for line in map(json.loads, done.stdout.splitlines())}
    for way in ("chat", "generate"):
        assert told[f"{way} stream"] == {"text": told[way], "done": True, "hasCounts": True}
    assert "Paris" in told["chat"]
    assert told["format"]["name"] in ("Paris", "Rome")
    assert told["list"] == told["ps"] == [f"{MODEL}:latest"]
    assert (told["tools"], told["show"], told["pull"]) == ("string", ["completion", "tools"], "success")
    assert (told["unknown model"]["status"], told["embed"]["status"]) == (404, 400)
    assert "This server makes no embeddings" in told["embed"]["message"]
