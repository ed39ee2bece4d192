"""Clients that want an answer of a shape, unmodified but for ``base_url``, against a live server with the real base model.

Where a client asks for JSON without saying which (``json_object``), an example in the conversation shows the model what it
wants; where it sends a schema, the answer obeys it with or without one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from jsonschema import Draft202012Validator
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, Field

from tests.openai_api.real_server import RealServer, real_server

MODEL = "gemma-3-270m"
TEXT = "Anna, 34 years old, lives in Paris."
MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tom is 52 and lives in Rome."},
    {"role": "assistant", "content": '{"name": "Tom", "age": 52, "city": "Rome"}'},
    {"role": "user", "content": TEXT},
]
SETTINGS: dict[str, Any] = {"temperature": 0, "max_tokens": 60}


class Person(BaseModel):
    """A person of whom a text tells."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)
    city: Literal["Paris", "London", "Rome"]


ANNA = Person(name="Anna", age=34, city="Paris")


@pytest.fixture(scope="module")
def server(embedded_gguf: Path) -> Iterator[RealServer]:
    with real_server("--served-model-name", MODEL, "--max-model-len", "4096") as live:
        yield live


@pytest.fixture(scope="module")
def url(server: RealServer) -> str:
    return f"{server.url}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="unused", timeout=120, max_retries=0) as sdk:
        yield sdk


def test_openai_parse(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Person, **SETTINGS)
    assert answer.choices[0].message.parsed == ANNA
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == '{"name": "Anna", "age": 34, "city": "Paris"}'


def test_openai_parse_raises_its_own_error_when_the_tokens_end(client: OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL, messages=MESSAGES, response_format=Person, temperature=0, max_tokens=5
        )


def test_openai_stream(client: OpenAI) -> None:
    request = {"model": MODEL, "messages": MESSAGES, "response_format": Person, **SETTINGS}
    with client.chat.completions.stream(**request) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == ANNA
    assert kinds.count("content.delta") > 1
    assert kinds[-1] == "content.done"


def test_openai_choices_with_seed_logprobs_and_prediction(client: OpenAI) -> None:
    request: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 60, "temperature": 1.0, "seed": 3}
    request |= {"response_format": Person, "n": 3, "logprobs": True, "top_logprobs": 2}
    first = client.chat.completions.parse(**request)
    again = client.chat.completions.parse(
        **request, prediction={"type": "content", "content": first.choices[0].message.content or ""}
    )
    texts = [choice.message.content for choice in first.choices]
    assert all(isinstance(choice.message.parsed, Person) for choice in first.choices)
    assert [choice.message.content for choice in again.choices] == texts
    for choice in first.choices:
        assert choice.logprobs is not None
        told = "".join(entry.token for entry in choice.logprobs.content or ())
        assert told.strip() == choice.message.content


def test_openai_completions_of_a_choice(client: OpenAI) -> None:
    """In text, with an echo in front that stays exact."""
    request: dict[str, Any] = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "echo": True}
    choices = {"structured_outputs": {"choice": [" Rome", " Paris", " Madrid"]}}
    free = client.completions.create(**request, logprobs=1, max_tokens=0).choices[0]
    bound = client.completions.create(**request, logprobs=1, max_tokens=9, extra_body=choices).choices[0]
    assert bound.text == "The capital of France is Paris"
    assert bound.finish_reason == "stop"
    assert free.logprobs is not None
    assert bound.logprobs is not None
    assert bound.logprobs.token_logprobs is not None
    assert bound.logprobs.token_logprobs[: len(free.logprobs.token_logprobs or ())] == free.logprobs.token_logprobs


def test_openai_says_what_is_wrong_with_a_schema(client: OpenAI) -> None:
    format_of = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "text"}, "strict": True}}
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, response_format=format_of)  # type: ignore[call-overload]
    assert (bad.value.code, bad.value.param) == ("invalid_json_schema", "response_format.json_schema.schema")


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "schema": Person.model_json_schema()}},
        {"guided_json": json.dumps(Person.model_json_schema())},
        {"json_schema": Person.model_json_schema(), "stream": True},
    ],
)
def test_other_spellings(url: str, fields: dict[str, Any]) -> None:
    with httpx.Client(base_url=url, timeout=60) as plain:
        answer = plain.post("/chat/completions", json={"messages": MESSAGES, **SETTINGS, **fields})
    assert answer.status_code == 200, answer.text
    text = answer.text if "stream" not in fields else joined(answer.text)
    content = text if "stream" in fields else answer.json()["choices"][0]["message"]["content"]
    assert Person.model_validate_json(content) == ANNA


def joined(events: str) -> str:
    chunks = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


OF_ZOD = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "full name", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
        "height": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 3},
        "kind": {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}], "default": "a"},
    },
    "required": ["name", "age", "height", "kind"],
    "additionalProperties": False,
}
OF_PYDANTIC = {
    "$defs": {
        "Pet": {"properties": {"name": {"title": "Name", "type": "string", "maxLength": 8}}, "required": ["name"]}
    },
    "properties": {
        "pets": {"items": {"$ref": "#/$defs/Pet"}, "maxItems": 2, "title": "Pets", "type": "array"},
        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    },
    "required": ["pets"],
    "title": "Owner",
    "type": "object",
}


@pytest.mark.parametrize("schema", [OF_ZOD, OF_PYDANTIC])
def test_schemas_of_the_kinds_that_clients_send(client: OpenAI, schema: dict[str, Any]) -> None:
    """Drawn at a high temperature: what is complete is valid, and has only the keys that are listed."""
    format_of: Any = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_format=format_of, temperature=1.5, seed=4, n=2, max_tokens=60
    )
    complete = [choice.message.content or "" for choice in answer.choices if choice.finish_reason == "stop"]
    assert complete
    for text in map(json.loads, complete):
        Draft202012Validator(schema).validate(text)
        assert set(text) <= set(schema["properties"])


@pytest.mark.parametrize("mode", ["JSON", "JSON_SCHEMA", "TOOLS"])
def test_instructor(client: OpenAI, mode: str) -> None:
    instructor = pytest.importorskip("instructor")
    patched = instructor.from_openai(client, mode=instructor.Mode[mode])
    person = patched.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_model=Person, max_retries=0, **SETTINGS
    )
    assert person.model_dump() == ANNA.model_dump()  # of a class that the client derives


@pytest.mark.parametrize("kind", ["NativeOutput", "PromptedOutput", "ToolOutput"])
def test_pydantic_ai(url: str, kind: str) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def run(prompt: str) -> object:
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0, timeout=60) as sdk:
            model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=sdk))
            agent = pydantic_ai.Agent(
                model, output_type=getattr(pydantic_ai, kind)(Person), model_settings=SETTINGS, retries=0
            )
            return (await agent.run(prompt)).output

    import asyncio

    example = 'Tom is 52 and lives in Rome.\n{"name": "Tom", "age": 52, "city": "Rome"}\n\n'
    assert asyncio.run(run(example + TEXT)) == ANNA


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # of the client's own making
@pytest.mark.parametrize(
    "method",
    ["json_schema", "json_mode", "function_calling"],
)
def test_langchain(url: str, method: str) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=url, api_key="x", model=MODEL, max_retries=0, **SETTINGS)  # type: ignore[arg-type]
    bound = chat.with_structured_output(Person, method=method)  # type: ignore[arg-type]
    assert bound.invoke(MESSAGES) == ANNA
    if method != "json_mode":
        assert list(bound.stream(MESSAGES))[-1] == ANNA


def test_outlines(client: OpenAI) -> None:
    outlines = pytest.importorskip("outlines")
    model = outlines.from_vllm(client, MODEL)
    assert Person.model_validate_json(model(f"{TEXT} As JSON:", Person, **SETTINGS)) == ANNA
    assert model("Is snow white?", Literal["yes", "no"], **SETTINGS) in ("yes", "no")
    year = model("In which year did the war end?", outlines.types.Regex("(19|20)[0-9]{2}"), **SETTINGS)
    assert year.isdecimal()
    assert len(year) == 4
    total = model("Write a sum.", outlines.types.CFG('start: NUM "+" NUM\nNUM: /[0-9]/'), **SETTINGS)
    assert [total[0].isdecimal(), total[1:2], total[2:].isdecimal()] == [True, "+", True]


@pytest.mark.filterwarnings("ignore")  # of the client's own making
def test_litellm(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network when it is imported
    import litellm

    request = {"model": f"openai/{MODEL}", "api_base": url, "api_key": "x", "messages": MESSAGES, **SETTINGS}
    whole = litellm.completion(**request, response_format=Person)
    assert Person.model_validate_json(whole.choices[0].message.content) == ANNA
    chunks = litellm.completion(**request, response_format=Person, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


def test_query_program(server: RealServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from openai_api import ask

    schema = tmp_path / "person.json"
    schema.write_text(json.dumps(Person.model_json_schema()))
    flags = ["--url", server.url, "--temperature", "0", "--max-tokens", "60", "--prompt"]
    assert ask.main([*flags, f"{TEXT} As JSON:", "--schema", str(schema)]) == 0
    assert ask.main([*flags, "Is snow white?", "--choice", "yes", "--choice", "no", "--stream"]) == 0
    person, color = capsys.readouterr().out.splitlines()
    assert Person.model_validate_json(person) == ANNA
    assert color in ("yes", "no")


@pytest.mark.parametrize("max_tokens", [20, 30])
def test_an_answer_that_closes_within_its_tokens(url: str, max_tokens: int) -> None:
    schema = {
        "type": "object",
        "properties": {"cities": {"type": "array", "items": {"type": "string"}}, "tag": {"enum": ["a", "b"]}},
        "required": ["cities", "tag"],
        "additionalProperties": False,
    }
    body = {"messages": MESSAGES, "json_schema": schema, "x_close": True, "max_tokens": max_tokens}
    for seed in range(6):
        answer = httpx.post(f"{url}/chat/completions", json={**body, "temperature": 2, "seed": seed}, timeout=120)
        (choice,) = answer.json()["choices"]
        assert choice["finish_reason"] == "stop", choice
        assert list(json.loads(choice["message"]["content"])) == ["cities", "tag"]
    refused = httpx.post(f"{url}/chat/completions", json={**body, "max_tokens": 3}).json()["error"]
    assert (refused["param"], refused["code"]) == ("max_tokens", "invalid_value")


def test_only_a_constrained_answer_can_close(url: str) -> None:
    refused = httpx.post(f"{url}/chat/completions", json={"messages": MESSAGES, "x_close": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x_close")
