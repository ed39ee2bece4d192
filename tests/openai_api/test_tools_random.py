"""Random tools and a random model at temperature 2: no choice is disobeyed, no arguments are invalid.

The checkpoint writes its calls behind a mark of one character, which random text comes upon.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import jsonschema
import pytest

from engine.async_engine import AsyncLLMEngine
from engine.engine_options import EngineOptions
from engine.loading import LoadedEngine, load_engine
from gemma3.text.tool_form import ToolForm
from gemma3.text.tool_functiongemma import FUNCTIONGEMMA
from gemma3.text.tool_json import GOOGLES_JSON
from openai_api.settings import ServerSettings
from tests.gemma3 import tiny
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import Answer, LiveServer, live_server, wait_until
from tests.openai_api.test_tools import streamed_choices, without_ids

CHOICES = ("none", "auto", "required", "named")
FORMS = {
    "json": replace(GOOGLES_JSON, opening=("{",), before_name='"name": "'),
    "functiongemma": replace(FUNCTIONGEMMA, opening=("{",)),
}
BRACE_ID = 107 + ord("{")  # behind the control tokens of ``tiny.byte_tokenizer``


@pytest.fixture(scope="module", params=FORMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path = checkpoint(tmp_path_factory.mktemp("tools") / "tiny")
    engine = AsyncLLMEngine(lambda: with_form(path, FORMS[request.param]))
    with live_server(cast(FakeEngine, engine), ServerSettings()) as live:
        wait_until(lambda: httpx.get(f"{live.url}/health").status_code == 200, timeout_s=60)
        yield live


def checkpoint(folder: Path) -> Path:
    """Two layers, and room for tools spelt in bytes."""
    shape = tiny.random_shape(random.Random(3)) | {"num_hidden_layers": 2, "max_position_embeddings": 8192}
    return tiny.save_directory(folder, tiny.oracle_model(shape, 3))


def with_form(path: Path, form: ToolForm) -> LoadedEngine:
    loaded = load_engine(
        EngineOptions(model=str(path), dtype="float32", kv_cache_memory=64 << 20, max_num_seqs=16, threads=1)
    )
    return replace(loaded, chat_format=replace(loaded.chat_format, tool_form=form))


def random_value(rng: random.Random, depth: int) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = [
        {"type": "string", "maxLength": 6},
        {"type": "string", "enum": ["a b", "\u00fc\"'", "{", "null"][: rng.randint(1, 4)]},
        {"type": "integer", "minimum": -3, "maximum": rng.randint(0, 99)},
        {"type": "boolean", "description": "yes or no"},
        {"enum": [1, "1", None, True]},
        {"anyOf": [{"type": "null"}, {"type": "string", "enum": ["x", "y"]}], "default": None},
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        {"$ref": "#/$defs/unit"},
    ]
    if depth < 2:
        kinds += [random_object(rng, depth + 1)] * 3
    return rng.choice(kinds)


def random_object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(["a", "b1", "long_name", "c-d", "name", "parameters"], rng.randint(0, 4))
    schema: dict[str, Any] = {"type": "object", "properties": {name: random_value(rng, depth) for name in names}}
    schema["required"] = rng.sample(names, rng.randint(0, len(names)))
    return schema | ({"additionalProperties": False} if rng.random() < 0.5 else {})


def random_tools(rng: random.Random) -> list[dict[str, Any]]:
    units = {"$defs": {"unit": {"enum": ["m", "km"]}}}
    tools = []
    for name in rng.sample(["f", "ff", "get_x", "a.b-c", "x1"], rng.randint(1, 4)):
        function: dict[str, Any] = {"name": name}
        if rng.random() < 0.85:
            function["parameters"] = random_object(rng, 0) | units
        if rng.random() < 0.5:
            function |= {"description": "Does something", "strict": rng.random() < 0.5}
        tools.append({"type": "function", "function": function})
    return tools


def random_body(rng: random.Random, choice: str) -> dict[str, Any]:
    tools = random_tools(rng)
    named = {"type": "function", "function": {"name": rng.choice(tools)["function"]["name"]}}
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": 'Call {"name": "f"}'}],
        "tools": tools,
        "tool_choice": named if choice == "named" else choice,
        "parallel_tool_calls": rng.random() < 0.5,
        "temperature": 2,
        "seed": rng.getrandbits(30),
        "max_tokens": 128,
        "logit_bias": {str(BRACE_ID): 5} if choice == "auto" else {},
        "ignore_eos": choice == "auto",
    }


def check(body: dict[str, Any], choice: dict[str, Any]) -> None:
    calls = [call["function"] for call in choice["message"].get("tool_calls", [])]
    asked, reason = body["tool_choice"], choice["finish_reason"]
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in body["tools"]}
    assert all(call["name"] in schemas for call in calls)
    if asked == "none":
        assert not calls
    if asked == "required" or isinstance(asked, dict):
        assert not choice["message"].get("content")
        assert calls or reason == "length"
    if isinstance(asked, dict):
        assert {call["name"] for call in calls} <= {asked["function"]["name"]}
    if not body["parallel_tool_calls"]:
        assert len(calls) <= 1
    for call in calls if reason == "tool_calls" else calls[:-1]:
        arguments = tiny_json(call["arguments"])
        jsonschema.validate(arguments, schemas[call["name"]] or {"type": "object", "maxProperties": 0})
    assert (reason == "tool_calls") <= bool(calls)
    assert not (reason == "stop" and calls)


def tiny_json(text: str) -> Any:
    import json

    value = json.loads(text)
    assert isinstance(value, dict)
    return value


async def outcomes(server: LiveServer, bodies: list[dict[str, Any]], *, streams: bool) -> list[list[Any]]:
    """The choice of each body, whole, and if asked for streamed; sixteen bodies at a time."""
    room = asyncio.Semaphore(16)
    async with httpx.AsyncClient(timeout=120) as client:

        async def post(body: dict[str, Any]) -> list[Any]:
            async with room:
                whole = await client.post(f"{server.url}/v1/chat/completions", json=body)
                assert whole.status_code == 200, whole.text
                found = [whole.json()["choices"][0]]
                if streams:
                    answer = await client.post(f"{server.url}/v1/chat/completions", json={**body, "stream": True})
                    found.append(streamed_choices(Answer(answer.status_code, {}, answer.content))[0])
                return found

        return await asyncio.gather(*map(post, bodies))


def run(server: LiveServer, num_sets: int, *, streams: bool) -> dict[str, int]:
    """How many answers to each choice had calls that were not cut."""
    rng = random.Random(num_sets)
    bodies = [random_body(rng, choice) for _ in range(num_sets) for choice in CHOICES]
    found = dict.fromkeys(CHOICES, 0)
    for body, choices in zip(bodies, asyncio.run(outcomes(server, bodies, streams=streams)), strict=True):
        check(body, choices[0])
        for streamed in choices[1:]:
            assert without_ids(streamed["message"]) == without_ids(choices[0]["message"])
            assert streamed["finish_reason"] == choices[0]["finish_reason"]
        name = "named" if isinstance(body["tool_choice"], dict) else body["tool_choice"]
        found[name] += choices[0]["finish_reason"] == "tool_calls"
    return found


def test_nothing_is_disobeyed(server: LiveServer) -> None:
    found = run(server, 6, streams=True)
    assert found["none"] == 0
    assert all(found[choice] >= 1 for choice in ("auto", "required", "named")), found


@pytest.mark.parametrize(
    "num_sets", [pytest.param(40, marks=pytest.mark.slow), pytest.param(250, marks=pytest.mark.soak)]
)
def test_nothing_is_disobeyed_in_many_answers(server: LiveServer, num_sets: int) -> None:
    """The server has two forms of calls, so that 250 sets are 2,000 answers."""
    found = run(server, num_sets, streams=False)
    assert all(found[choice] >= num_sets // 5 for choice in ("auto", "required", "named")), found
