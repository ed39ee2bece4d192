"""ollama-python and LangChain's ChatOllama, unmodified, and the calls of Open WebUI's backend: against a live server with
the real base model, or with a scripted engine where a model would have to call a tool.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import ollama
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_ollama import ChatOllama
from pydantic import BaseModel

from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import LiveServer, lines_of
from tests.openai_api.real_server import RealServer

MODEL = "gemma-3-270m"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OPTIONS = {"temperature": 0, "num_predict": 12, "num_ctx": 2048}
CALL = '{"name": "weather", "parameters": {"city": "Paris"}}'


class City(BaseModel):
    name: Literal["Paris", "Rome"]
    is_large: bool


def weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: The name of the city
    """
    return f"Sunny in {city}"


@pytest.fixture(scope="module")
def client(server: RealServer) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url, timeout=120) as client:
        yield client


@contextmanager
def chat_ollama(url: str, **settings: Any) -> Iterator[ChatOllama]:
    """It has no way to close its connections of its own."""
    model = ChatOllama(base_url=url, **settings)
    try:
        yield model
    finally:
        model._client.close()


def test_chat_whole_streamed_and_as_openais(client: ollama.Client, server: RealServer) -> None:
    whole = client.chat(MODEL, QUESTION, options=OPTIONS)
    parts = list(client.chat(MODEL, QUESTION, options=OPTIONS, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "Paris" in (whole.message.content or "")
    body = {"messages": QUESTION, "temperature": 0, "max_tokens": 12}
    openais = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert whole.message.content == openais["choices"][0]["message"]["content"]
    usage = openais["usage"]
    assert (whole.prompt_eval_count, whole.eval_count) == (usage["prompt_tokens"], usage["completion_tokens"])
    for last in (whole, parts[-1]):
        assert last.total_duration == last.load_duration + last.prompt_eval_duration + last.eval_duration
        assert min(last.load_duration, last.prompt_eval_duration, last.eval_duration) > 0


def test_seeds_draw_the_same_text(client: ollama.Client, server: RealServer) -> None:
    whole = client.chat(f"{MODEL}:latest", QUESTION, options={"seed": 7, "temperature": 1, "num_predict": 12})
    body = {"messages": QUESTION, "temperature": 1, "max_tokens": 12, "seed": 7}
    openais = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert whole.message.content == openais["choices"][0]["message"]["content"]


def test_generate(client: ollama.Client, server: RealServer) -> None:
    asked = client.generate(MODEL, QUESTION[0]["content"], options=OPTIONS)
    assert asked.response == client.chat(MODEL, QUESTION, options=OPTIONS).message.content
    raw = client.generate(MODEL, "The capital of France is", raw=True, options=OPTIONS)
    body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 12}
    openais = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()
    assert raw.response == openais["choices"][0]["text"]
    assert (raw.context, raw.done_reason) == (None, "length")
    streamed = client.generate(MODEL, "The capital of France is", raw=True, options=OPTIONS, stream=True)
    assert "".join(part.response or "" for part in streamed) == raw.response


def test_context_goes_on_as_chat_does(client: ollama.Client) -> None:
    """The base model ends an answer with the beginning of the next turn, which is there once."""
    options = {"temperature": 0, "num_predict": 24}
    first = client.generate(MODEL, QUESTION[0]["content"], options=options)
    assert first.done_reason == "stop"
    second = client.generate(MODEL, "And of Italy?", context=first.context, options=options)
    turns = [*QUESTION, {"role": "assistant", "content": first.response}, {"role": "user", "content": "And of Italy?"}]
    chat = client.chat(MODEL, turns, options=options)
    assert second.response == chat.message.content
    assert abs(second.prompt_eval_count - chat.prompt_eval_count) <= 2


def test_format(client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 80}
    whole = client.chat(MODEL, QUESTION, format=City.model_json_schema(), options=options)
    assert City.model_validate_json(whole.message.content or "")
    generated = client.generate(MODEL, "Paris", format=City.model_json_schema(), options=options)
    assert City.model_validate_json(generated.response)


def test_logprobs(client: ollama.Client) -> None:
    whole = client.chat(MODEL, QUESTION, logprobs=True, top_logprobs=2, options=OPTIONS)
    assert whole.logprobs is not None
    assert "".join(entry.token for entry in whole.logprobs).startswith(whole.message.content or "")
    assert len(whole.logprobs) == whole.eval_count
    assert all(len(entry.top_logprobs or []) == 2 for entry in whole.logprobs)


def test_what_is_told_of_the_model(client: ollama.Client) -> None:
    (listed,) = client.list().models
    assert listed.model == f"{MODEL}:latest"
    assert listed.size > 100_000_000
    assert len(listed.digest or "") == 64
    assert listed.details is not None
    assert (listed.details.family, listed.details.parameter_size) == ("gemma3", "268.10M")
    (running,) = client.ps().models
    assert (running.model, running.digest, running.size) == (listed.model, listed.digest, listed.size)
    assert (running.context_length, running.size_vram) == (4096, 0)
    shown = client.show(MODEL)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.parameter_count"] == 268_098_176
    assert shown.modelinfo["gemma3.context_length"] == 4096
    assert shown.modelinfo["gemma3.block_count"] == 18


def test_what_is_not_done(client: ollama.Client) -> None:
    assert client.pull(MODEL).status == "success"
    assert [part.status for part in client.pull(MODEL, stream=True)][-1] == "success"
    for call in (
        lambda: client.embed(MODEL, "x"),
        lambda: client.embeddings(MODEL, "x"),
        lambda: client.create("new", from_=MODEL),
        lambda: client.push(MODEL),
        lambda: client.copy(MODEL, "new"),
        lambda: client.delete(MODEL),
    ):
        with pytest.raises(ollama.ResponseError, match="This server") as raised:
            call()
        assert raised.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match=f"this server has '{MODEL}'") as raised:
        client.chat("llama3.2", QUESTION)
    assert raised.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"'options\.temperature': expected a number from 0 to 2"):
        list(client.chat(MODEL, QUESTION, options={"temperature": 9}, stream=True))


def test_loading_and_unloading(client: ollama.Client) -> None:
    assert client.generate(MODEL).done_reason == "load"
    assert client.chat(MODEL, keep_alive="5m").done_reason == "load"
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert client.chat(MODEL, QUESTION, options=OPTIONS).done_reason in ("stop", "length")


def test_async_client(server: RealServer) -> None:
    async def ask() -> tuple[str, str]:
        async with ollama.AsyncClient(host=server.url, timeout=120) as client:
            whole = await client.chat(MODEL, QUESTION, options=OPTIONS)
            parts = [part async for part in await client.chat(MODEL, QUESTION, options=OPTIONS, stream=True)]
        return whole.message.content or "", "".join(part.message.content or "" for part in parts)

    whole, streamed = asyncio.run(ask())
    assert whole == streamed != ""


def test_tools_of_ollama_python(live: LiveServer, engine: FakeEngine) -> None:
    """A Python function is shown, called, and its result handed back."""
    messages: list[Any] = [{"role": "user", "content": "How is the weather in Paris?"}]
    engine.script = Script(text=CALL)
    with ollama.Client(host=live.url) as client:
        answer = client.chat(MODEL_ID, messages, tools=[weather])
        (call,) = answer.message.tool_calls or ()
        assert (call.function.name, dict(call.function.arguments)) == ("weather", {"city": "Paris"})
        shown = json.loads(json.dumps(engine.shown_tools))[0]["function"]
        assert shown["parameters"]["properties"]["city"]["description"] == "The name of the city"
        streamed = list(client.chat(MODEL_ID, messages, tools=[weather], stream=True))
        calls = [call for part in streamed for call in part.message.tool_calls or ()]
        assert [each.function for each in calls] == [call.function]
        engine.script = Script()
        result = {"role": "tool", "tool_name": "weather", "content": weather(**call.function.arguments)}
        assert client.chat(MODEL_ID, [*messages, answer.message, result], tools=[weather]).message.content == TEXT
    _, calling, told = engine.rendered[-1]
    assert (calling.tool_calls[0].name, told.name, told.content) == ("weather", "weather", "Sunny in Paris")


def test_chat_ollama(server: RealServer) -> None:
    question = "What is the capital of France?"
    with chat_ollama(
        server.url, model=MODEL, temperature=0, num_predict=30, keep_alive="5m", validate_model_on_init=True
    ) as model:
        whole = model.invoke(question)
        assert "Paris" in whole.content
        assert whole.usage_metadata is not None
        assert whole.usage_metadata["output_tokens"] > 0
        assert whole.response_metadata["done_reason"] in ("stop", "length")
        assert "".join(str(part.content) for part in model.stream(question)) == whole.content
        assert isinstance(model.with_structured_output(City, method="json_schema").invoke("Paris"), City)


def test_chat_ollama_calls_tools(live: LiveServer, engine: FakeEngine) -> None:
    question = HumanMessage("How is the weather in Paris?")
    engine.script = Script(text=CALL)
    with chat_ollama(live.url, model=MODEL_ID) as model:
        answer = model.bind_tools([weather]).invoke([question])
        assert isinstance(answer, AIMessage)
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
        engine.script = Script()
        assert model.invoke([question, answer, ToolMessage("Sunny", tool_call_id=call["id"])]).content == TEXT


def test_the_calls_of_open_webui(server: RealServer) -> None:
    """What its backend asks of a connection: the lists, a chat with its settings, a title, an unload."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer x", "X-OpenWebUI-User-Role": "admin"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=120) as client:
        assert client.get("/").status_code == client.head("/").status_code == 200
        name = client.get("/api/tags").json()["models"][0]["model"]
        assert client.get("/api/ps").json()["models"][0]["name"] == name
        assert tuple(map(int, client.get("/api/version").json()["version"].split("."))) >= (0, 1, 16)
        assert client.post("/api/show", json={"model": name}).json()["details"]["family"] == "gemma3"
        settings = {"num_ctx": 2048, "num_predict": 12, "temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 1,
                    "repeat_last_n": 64, "repeat_penalty": 1.1, "mirostat": 0, "mirostat_eta": 0.1, "mirostat_tau": 5,
                    "num_keep": 24, "num_batch": 512, "use_mmap": True, "num_thread": 2, "stop": ["##"]}  # fmt: skip
        body = {"model": name, "messages": QUESTION, "options": settings, "stream": True, "keep_alive": "5m"}
        chat = client.post("/api/chat", json=body)
        assert (chat.status_code, chat.headers["content-type"]) == (200, "application/x-ndjson")
        assert lines_of(chat.text)[-1]["eval_count"] > 0
        title = {"model": name, "prompt": "A title:", "stream": False, "options": {"num_predict": 5, "stop": None}}
        assert client.post("/api/generate", json=title).status_code == 200
        unload = client.post("/api/generate", json={"model": name, "keep_alive": 0, "prompt": ""})
        assert unload.json()["done_reason"] == "unload"
