"""What clients hand back on the second turn: the message of the first answer, as each of them keeps it.

Unmodified clients against a live server with the scripted engine, which notes the messages that reach it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from gemma3.text.chat import Message, ToolCall
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine
from tests.openai_api.harness import MESSAGES, LiveServer

AGAIN = {"role": "user", "content": "And then?"}
CONVERSATION = [Message("user", "Hi"), Message("assistant", TEXT), Message("user", "And then?")]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}


@pytest.fixture
def sdk(live: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", timeout=20) as client:
        yield client


def created(sdk: openai.OpenAI) -> Any:
    return sdk.chat.completions.create(model=MODEL_ID, messages=MESSAGES)  # type: ignore[arg-type]


def streamed(sdk: openai.OpenAI) -> Any:
    with sdk.chat.completions.stream(model=MODEL_ID, messages=MESSAGES) as stream:  # type: ignore[arg-type]
        return stream.get_final_completion()


def parsed(sdk: openai.OpenAI) -> Any:
    return sdk.chat.completions.parse(model=MODEL_ID, messages=MESSAGES)  # type: ignore[arg-type]


@pytest.mark.parametrize("first_turn", [created, streamed, parsed])
def test_the_official_client(
    sdk: openai.OpenAI, engine: FakeEngine, first_turn: Callable[[openai.OpenAI], Any]
) -> None:
    """Its object, and the dictionaries that people make of it."""
    message = first_turn(sdk).choices[0].message
    forms = [message, message.model_dump(), message.to_dict(), message.model_dump(exclude_none=True)]
    for form in forms:
        answer = sdk.chat.completions.create(model=MODEL_ID, messages=[*MESSAGES, form, AGAIN])
        assert answer.choices[0].message.content == TEXT
        assert engine.rendered[-1] == CONVERSATION


def test_the_official_client_with_the_parts_of_a_stream(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    """The deltas as they are, one message each, as a careless client keeps them."""
    chunks = sdk.chat.completions.create(model=MODEL_ID, messages=MESSAGES, stream=True)  # type: ignore[arg-type]
    deltas = [chunk.choices[0].delta.model_dump() | {"role": "assistant"} for chunk in chunks]
    assert sdk.chat.completions.create(model=MODEL_ID, messages=[*MESSAGES, *deltas, AGAIN]).choices[0].message
    assert "".join(message.content for message in engine.rendered[-1] if message.role == "assistant") == TEXT


def test_calls_and_results_of_tools_without_tools(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    """As the official client writes them, a conversation begun with another model among them."""
    asked = openai.types.chat.ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": None, "tool_calls": [CALL]}
    )
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    for form in (asked, asked.model_dump()):
        sdk.chat.completions.create(model=MODEL_ID, messages=[*MESSAGES, form, result, AGAIN])
        assert engine.rendered[-1][1:3] == [
            Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Paris"}', "call_1"),)),
            Message("tool", "sunny", tool_call_id="call_1"),
        ]


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network when it is imported
    import litellm

    return litellm


@pytest.mark.filterwarnings("ignore")  # of the client's own making
def test_litellm(litellm: Any, live: LiveServer, engine: FakeEngine) -> None:
    settings = {"model": f"openai/{MODEL_ID}", "api_base": f"{live.url}/v1", "api_key": "x", "num_retries": 0}
    whole = litellm.completion(messages=MESSAGES, **settings)
    chunks = list(litellm.completion(messages=MESSAGES, stream=True, **settings))
    for answer in (whole, litellm.stream_chunk_builder(chunks)):
        message = answer.choices[0].message
        for form in (message, message.model_dump(), message.json()):
            litellm.completion(messages=[*MESSAGES, form, AGAIN], **settings)
            assert engine.rendered[-1] == CONVERSATION


@pytest.mark.filterwarnings("ignore")  # of the client's own making
@pytest.mark.parametrize("stream", [False, True])
def test_litellm_knows_a_full_context(litellm: Any, live: LiveServer, stream: bool) -> None:
    settings = {"api_base": f"{live.url}/v1", "api_key": "x", "num_retries": 0, "stream": stream}
    for num_chars in (4096, 100_000):
        messages = [{"role": "user", "content": "x" * num_chars}]
        with pytest.raises(litellm.ContextWindowExceededError):
            list(litellm.completion(model=f"openai/{MODEL_ID}", messages=messages, **settings))
        with pytest.raises(litellm.ContextWindowExceededError):
            list(
                litellm.text_completion(model=f"text-completion-openai/{MODEL_ID}", prompt="x" * num_chars, **settings)
            )


def test_langchain(live: LiveServer, engine: FakeEngine) -> None:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=f"{live.url}/v1", api_key="x", model=MODEL_ID, max_retries=0)
    whole = chat.invoke("Hi")
    first, *others = chat.stream("Hi")
    for answer in (whole, sum(others, first)):
        assert chat.invoke([HumanMessage("Hi"), answer, HumanMessage("And then?")]).content == TEXT
        assert engine.rendered[-1] == CONVERSATION
    asked = AIMessage("", name="planner", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "call_1"}])
    chat.invoke([HumanMessage("Hi", name="bob"), asked, ToolMessage("sunny", tool_call_id="call_1", name="weather")])
    call = ToolCall("weather", '{"city": "Paris"}', "call_1")
    assert engine.rendered[-1][0] == Message("user", "Hi", name="bob")
    assert engine.rendered[-1][1].tool_calls == (call,)
    assert engine.rendered[-1][2].tool_call_id == "call_1"


def test_langchain_knows_a_full_context(live: LiveServer) -> None:
    from langchain_core.exceptions import ContextOverflowError
    from langchain_openai import ChatOpenAI
    from langchain_openai.chat_models.base import OpenAIContextOverflowError

    chat = ChatOpenAI(base_url=f"{live.url}/v1", api_key="x", model=MODEL_ID, max_retries=0)
    for num_chars in (4096, 100_000):
        with pytest.raises(OpenAIContextOverflowError) as caught:
            chat.invoke("x" * num_chars)
        assert isinstance(caught.value, ContextOverflowError)
        with pytest.raises(OpenAIContextOverflowError):
            list(chat.stream("x" * num_chars))
