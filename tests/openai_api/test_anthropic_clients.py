"""What else speaks Anthropic's API, unmodified: LangChain, with the real base model; ``test_node_clients`` has those of npm."""

from typing import Any

import pytest

from tests.openai_api.real_server import RealServer

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
