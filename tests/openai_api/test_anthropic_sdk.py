"""anthropic-python against live servers, unmodified but for its ``base_url``: scripted, and with the real base model."""

from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx
import pytest
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

from engine.errors import QueueFullError, StepError
from openai_api.settings import ServerSettings
from tests.openai_api.anthropic_bodies import CITY, WEATHER, text
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import SharedServer, shared_server
from tests.openai_api.real_server import RealServer


class Weather(BaseModel):
    """A shape."""

    city: Literal["Rome", "Paris"]
    is_sunny: bool


HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
TOOL: ToolParam = {"name": "weather", "description": "The weather", "input_schema": CITY}
BASE_MODEL = "gemma-3-270m"


@pytest.fixture(scope="module")
def scripted() -> Iterator[SharedServer]:
    with shared_server(ServerSettings(api_keys=("secret",), max_body_bytes=100_000)) as shared:
        yield shared


@pytest.fixture
def client(scripted: SharedServer, engine: FakeEngine) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=scripted.use(engine).url, api_key="secret", timeout=20, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def real(server: RealServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="any", timeout=60, max_retries=0) as sdk:
        yield sdk


def test_create(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL_ID, max_tokens=256, system="Be brief.", messages=HI)
    assert [block.text for block in message.content if block.type == "text"] == [TEXT]
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 29)
    assert message._request_id is not None
    assert message._request_id.startswith("req_")


def test_create_stream(client: anthropic.Anthropic) -> None:
    events = list(client.messages.create(model=MODEL_ID, max_tokens=256, messages=HI, stream=True))
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert "".join(delta.text for delta in deltas if delta.type == "text_delta") == TEXT


@pytest.mark.parametrize("script", [TEXT, 'I look.\n\n{"name": "weather", "parameters": {"city": "Z\u00fcrich"}}'])
def test_the_stream_helper_gives_the_whole_message(
    client: anthropic.Anthropic, engine: FakeEngine, script: str
) -> None:
    engine.script = Script(text=script)
    asked: dict[str, Any] = {"model": MODEL_ID, "max_tokens": 256, "messages": HI, "tools": [TOOL]}
    with client.messages.stream(**asked) as stream:
        told = "".join(stream.text_stream)
        final = stream.get_final_message()
    whole = client.messages.create(**asked)
    assert told == "".join(block.text for block in whole.content if block.type == "text")
    ids = {"id": True, "content": {"__all__": {"id"}}}
    assert final.model_dump(exclude=ids) == whole.model_dump(exclude=ids)


def test_a_loop_with_a_tool(client: anthropic.Anthropic, engine: FakeEngine) -> None:
    engine.scripts = {
        "Sunny": Script(text="It is sunny."),
        "weather in": Script(text='{"name": "weather", "parameters": {"city": "Rome"}}'),
    }
    messages: list[MessageParam] = [{"role": "user", "content": "What is the weather in Rome?"}]
    message = client.messages.create(model=MODEL_ID, max_tokens=256, messages=messages, tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (call,) = (block for block in message.content if block.type == "tool_use")
    assert call.input == {"city": "Rome"}
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"}
    messages += [message.to_param(), {"role": "user", "content": [result]}]
    last = client.messages.create(model=MODEL_ID, max_tokens=256, messages=messages, tools=[TOOL])
    assert [block.text for block in last.content if block.type == "text"] == ["It is sunny."]


def test_the_runner_of_tools(client: anthropic.Anthropic, engine: FakeEngine) -> None:
    """The beta's path has a query."""
    engine.scripts = {
        "Rome is sunny": Script(text="It is."),
        "Hi": Script(text='{"name": "weather", "parameters": {"city": "Rome"}}'),
    }

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """The weather.

        Args:
            city: where.
        """
        return f"{city} is sunny"

    runner = client.beta.messages.tool_runner(
        model=MODEL_ID, max_tokens=256, messages=[{"role": "user", "content": "Hi"}], tools=[weather]
    )
    last = runner.until_done()
    assert [block.text for block in last.content if block.type == "text"] == ["It is."]


def test_errors_are_the_sdks_own(client: anthropic.Anthropic, engine: FakeEngine) -> None:
    def raised(**fields: Any) -> anthropic.APIStatusError:
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**{"model": MODEL_ID, "max_tokens": 8, "messages": HI, **fields})
        return caught.value

    assert isinstance(raised(max_tokens=-1), anthropic.BadRequestError)
    assert isinstance(raised(model="claude-opus"), anthropic.NotFoundError)
    assert raised(system="x" * 100_000).status_code == 413
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="wrong").messages.create(model=MODEL_ID, max_tokens=8, messages=HI)
    engine.script = Script(fail=QueueFullError("Full.", retry_after_s=9))
    full = raised()
    assert isinstance(full, anthropic.RateLimitError)
    assert full.response.headers["retry-after"] == "9"
    engine.script = Script(fail=StepError("s3cr3t"))
    assert isinstance(raised(), anthropic.InternalServerError)
    engine.script = Script(fail=StepError("s3cr3t"), fail_at=3)
    with pytest.raises(anthropic.APIStatusError, match="failed on this request"):
        list(client.messages.create(model=MODEL_ID, max_tokens=64, messages=HI, stream=True))


def test_models(client: anthropic.Anthropic) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.type, model.lifecycle) == (MODEL_ID, "model", "active")
    assert client.models.retrieve(MODEL_ID).created_at == model.created_at
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude")


def test_the_real_model_answers_as_chat_does(real: anthropic.Anthropic, server: RealServer) -> None:
    """Greedy and drawn, plain and with tools; the prompt has as many tokens as are counted."""
    for sampling in ({"temperature": 0}, {"temperature": 1, "seed": 7}):
        for words in ("Name a colour.", "Z\u00fcrich \U0001f642?"):
            fields: dict[str, Any] = {
                "model": BASE_MODEL,
                "max_tokens": 24,
                "messages": [{"role": "user", "content": words}],
            }
            message = real.messages.create(**fields, extra_body=sampling)
            chat = httpx.post(f"{server.url}/v1/chat/completions", json={**fields, **sampling}, timeout=60).json()
            told = "".join(block.text for block in message.content if block.type == "text")
            assert told == chat["choices"][0]["message"]["content"]
            assert message.usage.output_tokens == chat["usage"]["completion_tokens"]
            assert message.usage.input_tokens == chat["usage"]["prompt_tokens"]
            counted = real.messages.count_tokens(model=BASE_MODEL, messages=fields["messages"])
            assert counted.input_tokens == message.usage.input_tokens


def test_the_real_model_calls_and_obeys(real: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": BASE_MODEL,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "The weather in Rome?"}],
        "extra_body": {"temperature": 0},
    }
    chosen: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
    with real.messages.stream(**asked, **chosen) as stream:
        message = stream.get_final_message()
    (call,) = (block for block in message.content if block.type == "tool_use")
    assert (message.stop_reason, set(call.input)) == ("tool_use", {"city"})
    counted = real.messages.count_tokens(model=BASE_MODEL, messages=asked["messages"], **chosen)
    assert counted.input_tokens == message.usage.input_tokens
    shaped = real.messages.parse(**asked, output_format=Weather)
    assert isinstance(shaped.parsed_output, Weather)


def test_the_real_model_tells_which_sequence_stopped_it(real: anthropic.Anthropic) -> None:
    """Also beside tools, where a grammar has the stop strings."""
    asked: dict[str, Any] = {
        "model": BASE_MODEL,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Say something."}],
        "stop_sequences": ["zzz", *" \naeiou"],
        "extra_body": {"temperature": 0},
    }
    for more in ({}, {"tools": [WEATHER]}):
        message = real.messages.create(**asked, **more)
        assert message.stop_reason == "stop_sequence"
        assert message.stop_sequence in list(" \naeiou")


def test_a_prefill_is_continued_and_a_cache_warmed(real: anthropic.Anthropic) -> None:
    asked: list[MessageParam] = [{"role": "user", "content": [text("Count. " * 40)]}]  # type: ignore[list-item]
    prefilled: list[MessageParam] = [*asked, {"role": "assistant", "content": "1, 2, 3,"}]
    more: dict[str, Any] = {
        "model": BASE_MODEL,
        "cache_control": {"type": "ephemeral"},
        "extra_body": {"temperature": 0},
    }
    warmed = real.messages.create(messages=prefilled, max_tokens=0, **more)
    assert (warmed.content, warmed.usage.output_tokens, warmed.stop_reason) == ([], 0, "max_tokens")
    message = real.messages.create(messages=prefilled, max_tokens=8, **more)
    assert (message.usage.cache_read_input_tokens or 0) > 0
    assert message.content[0].type == "text"
    assert "4" in message.content[0].text
