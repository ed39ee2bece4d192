"""OpenAI's own client and ``/v1/responses``, against a live server with a scripted engine."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from engine.errors import StepError
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import SharedServer, shared_server, wait_until
from tests.openai_api.test_responses import TOOLS
from tests.openai_api.test_tools import ARGUMENTS, CALL


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def server() -> Iterator[SharedServer]:
    with shared_server(ServerSettings(api_keys=("secret",))) as shared:
        yield shared


@pytest.fixture
def client(server: SharedServer, engine: FakeEngine) -> Iterator[openai.OpenAI]:
    live = server.use(engine)
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="secret", timeout=20, max_retries=0) as sdk:
        yield sdk


def test_created_retrieved_listed_and_deleted(client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL_ID, input="Hi", metadata={"a": "b"}, max_tool_calls=1)
    assert made.output_text == TEXT
    assert made._request_id is not None
    assert client.responses.retrieve(made.id).output_text == TEXT
    items = client.responses.input_items.list(made.id, limit=1)
    assert [item.to_dict()["content"] for item in items] == [[{"type": "input_text", "text": "Hi"}]]
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(made.id)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.retrieve(made.id)
    assert gone.value.code == "response_not_found"


def test_a_stream_as_the_sdk_reads_it(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL_ID, input="Hi") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == TEXT
    assert final.usage is not None
    assert client.responses.retrieve(final.id).to_dict() == client.responses.retrieve(final.id).to_dict()
    events = list(client.responses.create(model=MODEL_ID, input="Hi", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_shape_is_parsed(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = Script(text='{"name": "Anna", "age": 34}')
    parsed = client.responses.parse(model=MODEL_ID, input="Anna is 34.", text_format=Person)
    assert parsed.output_parsed == Person(name="Anna", age=34)
    assert '"age"' in engine.compiled[-1].text
    with client.responses.stream(model=MODEL_ID, input="Anna is 34.", text_format=Person) as stream:
        assert stream.until_done().get_final_response().output_parsed == Person(name="Anna", age=34)


def test_a_loop_with_tools(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.scripts = {"tool: rain": Script(text="It rains.")}
    engine.script = Script(text=CALL)
    tools: Any = TOOLS
    first = client.responses.create(model=MODEL_ID, input="Weather?", tools=tools)
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("weather", ARGUMENTS)
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    last = client.responses.create(model=MODEL_ID, input=[output], tools=tools, previous_response_id=first.id)
    assert last.output_text == "It rains."
    conversation: Any = [{"role": "user", "content": "Weather?"}, *first.output, output]
    assert (
        client.responses.create(model=MODEL_ID, input=conversation, tools=tools, store=False).output_text == "It rains."
    )


def test_tokens_of_an_input(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(model=MODEL_ID, input="Hi")
    made = client.responses.create(model=MODEL_ID, input="Hi")
    assert made.usage is not None
    assert counted.input_tokens == made.usage.input_tokens


def test_errors_are_the_sdks_exceptions(client: openai.OpenAI, engine: FakeEngine) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.responses.create(model=MODEL_ID, input="Hi", temperature=3)
    assert (bad.value.code, bad.value.param) == ("invalid_value", "temperature")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").responses.retrieve("resp_x")
    engine.script = Script(fail=StepError("x"), fail_at=2)
    with pytest.raises(openai.APIError) as caught:
        list(client.responses.create(model=MODEL_ID, input="Hi", stream=True))
    assert caught.value.code == "step_failed"


def test_closing_a_stream_aborts_it(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = Script(token_s=0.05)
    stream = client.responses.create(model=MODEL_ID, input="Hi", stream=True)
    next(iter(stream))
    stream.close()
    wait_until(lambda: engine.aborted)


def test_many_at_once_are_answered_each_for_itself(server: SharedServer, engine: FakeEngine) -> None:
    engine.scripts = {f"number {i}.": Script(text=f"Answer {i}.", token_s=0.002) for i in range(16)}
    live = server.use(engine)

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="secret", timeout=60) as sdk:

            async def ask(number: int) -> str:
                made = await sdk.responses.create(model=MODEL_ID, input=f"number {number}.")
                return (await sdk.responses.retrieve(made.id)).output_text

            return await asyncio.gather(*map(ask, range(16)))

    assert asyncio.run(run()) == [f"Answer {i}." for i in range(16)]
