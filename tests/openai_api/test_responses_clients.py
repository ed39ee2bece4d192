"""Clients that speak ``/v1/responses`` by default, unmodified, against a live server with the real base model."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.openai_api.real_server import ROOT, RealServer, real_server

MODEL = "gemma-3-270m"
QUESTION = "What is the capital of France?"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FLAGS = ("--served-model-name", MODEL, "--max-model-len", "4096")


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def client(server: RealServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", timeout=120, max_retries=0) as sdk:
        yield sdk


def test_the_same_text_as_chat_for_the_same_seed(client: OpenAI) -> None:
    for settings in ({"temperature": 0.0}, {"temperature": 1.0, "top_p": 0.9}):
        chat: Any = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=24, seed=5, logprobs=True,
            top_logprobs=2, **settings,  # type: ignore[arg-type]
        )  # fmt: skip
        asked: dict[str, Any] = {
            "model": MODEL, "input": QUESTION, "max_output_tokens": 24, "extra_body": {"seed": 5}, "top_logprobs": 2,
            "include": ["message.output_text.logprobs"], **settings,
        }  # fmt: skip
        whole: Any = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            streamed: Any = stream.until_done().get_final_response()
        logprobs = [entry.to_dict() for entry in chat.choices[0].logprobs.content]
        for response in (whole, streamed):
            assert response.output_text == chat.choices[0].message.content
            assert response.usage.input_tokens == chat.usage.prompt_tokens
            assert response.usage.output_tokens == chat.usage.completion_tokens
            told = [entry.to_dict() for entry in response.output[0].content[0].logprobs]
            assert [entry["token"] for entry in told] == [entry["token"] for entry in logprobs]


def test_the_same_calls_and_shapes_as_chat(client: OpenAI) -> None:
    function = {"name": "weather", "description": "The weather of a city", "parameters": CITY}
    settings: dict[str, Any] = {"model": MODEL, "temperature": 0, "tool_choice": "required"}
    question: Any = [{"role": "user", "content": "Weather in Paris?"}]
    chat: Any = client.chat.completions.create(
        messages=question, tools=[{"type": "function", "function": function}], max_tokens=200, **settings
    )
    response: Any = client.responses.create(
        input=question, tools=[{"type": "function", **function}], max_output_tokens=200, **settings
    )
    assert response.output[0].arguments == chat.choices[0].message.tool_calls[0].function.arguments
    message: Any = [
        {"role": "user", "content": "Tom is 52 years old."},
        {"role": "assistant", "content": '{"name": "Tom", "age": 52}'},
        {"role": "user", "content": "Anna is 34 years old."},
    ]
    parsed = client.responses.parse(model=MODEL, input=message, text_format=Person, temperature=0)
    assert parsed.output_parsed == Person(name="Anna", age=34)


def test_langchain(server: RealServer) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        base_url=f"{server.url}/v1", api_key="x", model=MODEL, temperature=0, max_tokens=24, use_responses_api=True
    )
    text = chat.invoke(QUESTION).text
    assert "Paris" in text
    assert "".join(chunk.text for chunk in chat.stream(QUESTION)) == text


@pytest.mark.slow
def test_a_folder_outlives_its_server(embedded_gguf: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    with real_server(*FLAGS, "--data-dir", folder) as first:
        made = OpenAI(base_url=f"{first.url}/v1", api_key="x").responses.create(
            model=MODEL, input=QUESTION, temperature=0
        )
        command = [sys.executable, "main.py", "serve", "--port", "0", *FLAGS, "--data-dir", folder]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2
        assert second.stderr.endswith("cannot be used: another server is using it\n")
        first.process.kill()
        first.process.wait(timeout=30)
    with real_server(*FLAGS, "--data-dir", folder) as third:
        client = OpenAI(base_url=f"{third.url}/v1", api_key="x")
        assert client.responses.retrieve(made.id).to_dict() == made.to_dict()
        further = client.responses.create(
            model=MODEL, input="And of Italy?", previous_response_id=made.id, temperature=0
        )
        assert further.usage is not None
        assert made.usage is not None
        assert further.usage.input_tokens > made.usage.input_tokens


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the client's own making
def test_openai_agents_hand_off_and_call(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = pytest.importorskip("agents", reason="openai-agents brings a dozen packages; pip install openai-agents")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    agents.set_tracing_disabled(True)

    @agents.function_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    settings = agents.ModelSettings(tool_choice="required", temperature=0, max_tokens=200)
    poet = agents.Agent(name="Poet", instructions="Write one short line.", model=MODEL)
    router = agents.Agent(name="Router", handoffs=[poet], model=MODEL, model_settings=settings)
    worker = agents.Agent(
        name="Worker", tools=[weather], model=MODEL, model_settings=settings, tool_use_behavior="stop_on_first_tool"
    )

    async def run() -> None:
        handed = await agents.Runner.run(router, "Write a line about rain.")
        assert handed.last_agent is poet
        called = agents.Runner.run_streamed(worker, "What is the weather in Paris?")
        kinds = [event.item.type async for event in called.stream_events() if event.type == "run_item_stream_event"]
        assert kinds[:2] == ["tool_call_item", "tool_call_output_item"]
        assert called.final_output.startswith("rain in ")

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the client's own making
def test_mirascope(server: RealServer) -> None:
    llm = pytest.importorskip("mirascope.llm", reason="pip install mirascope")
    llm.register_provider("openai:responses", scope="openai/", base_url=f"{server.url}/v1", api_key="unused")

    @llm.call(f"openai/{MODEL}", temperature=0, max_tokens=40)
    def ask(question: str) -> str:
        return question

    @llm.call(f"openai/{MODEL}", temperature=0, max_tokens=60, format=Person)
    def read(text: str) -> str:
        return text

    assert "Paris" in ask(QUESTION).text()
    assert "".join(ask.stream(QUESTION).text_stream()).strip() == ask(QUESTION).text().strip()
    person = read("Anna is 34 years old.").parse()
    assert isinstance(person, Person)
    assert json.loads(person.model_dump_json())["age"] >= 0
