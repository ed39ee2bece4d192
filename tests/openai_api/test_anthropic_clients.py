"""What else speaks Anthropic's API, unmodified: LangChain, ``@anthropic-ai/sdk`` and the AI SDK, with the real base model."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.openai_api.real_server import RealServer

SOURCES = Path(__file__).parent / "node_anthropic"
MODEL = "gemma-3-270m"
ANNA = {"name": "Anna", "age": 34}
EXAMPLE = [
    ("user", "Tom is 52 years old."),
    ("assistant", '{"name": "Tom", "age": 52}'),
    ("user", "Anna is 34 years old."),
]
PERSON = {
    "title": "person",
    "description": "A person",
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 150}},
    "required": ["name", "age"],
}

pytestmark = pytest.mark.slow


def test_langchain(server: RealServer) -> None:
    """Text whole and streamed, a forced tool, a structured answer."""
    chat_models = pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is not installed")
    messages: Any = pytest.importorskip("langchain_core.messages", reason="langchain-core is not installed")
    model: Any = chat_models.ChatAnthropic(
        model=MODEL, base_url=server.url, api_key="unused", max_tokens=100, temperature=0, max_retries=0
    )
    whole = model.invoke("What is the capital of France?")
    assert "Paris" in whole.content
    asked = [messages.HumanMessage("What is the capital of France?")]
    assert whole.usage_metadata["input_tokens"] == model.get_num_tokens_from_messages(asked)
    assert "".join(chunk.content for chunk in model.stream("What is the capital of France?")) == whole.content
    called = model.bind_tools([PERSON], tool_choice="any").invoke(EXAMPLE)
    assert called.tool_calls[0]["args"] == ANNA
    for method in ("function_calling", "json_schema"):
        assert model.with_structured_output(PERSON, method=method).invoke(EXAMPLE) == ANNA


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the script and the packages that it needs."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm or node is not installed")
    folder = tmp_path_factory.mktemp("node_anthropic")
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"npm could not fetch the clients: {done.stderr.strip()[-200:]}")
    return folder


def test_node(folder: Path, server: RealServer) -> None:
    command = ["node", "clients.mjs", server.url, MODEL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = {line["way"]: line["answer"] for line in map(json.loads, done.stdout.splitlines())}
    assert set(told.pop("generateObject")) == set(ANNA)  # by a forced tool, which the example does not show
    ways = ("create", "stream", "generateText", "streamText")
    assert told == dict.fromkeys(ways, ANNA) | {"two steps": "Anna is saved"}
