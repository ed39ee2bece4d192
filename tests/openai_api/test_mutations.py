"""Thousands of damaged requests: the answer is always one of those the contract knows, and never the server's fault."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from openai_api.settings import ServerSettings
from openai_api.wires import Wire, wire_of
from tests.openai_api.anthropic_bodies import BODIES_OF_CLIENTS
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import JSON, Asgi, chat_body, completion_body

NUM_MUTATIONS = 5_000
BASES: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        chat_body(
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi \u00e9\U0001f642"}]},
            ],
            temperature=0.5, top_p=0.9, n=1, max_tokens=4, stop=["x"], logprobs=True, top_logprobs=1, seed=1,
            logit_bias={"5": 1}, stream=True, stream_options={"include_usage": True}, user="u", metadata={"a": "b"},
        ),
    ),
    ("/v1/completions", completion_body(prompt=["a", [5, 6]], max_tokens=2, logprobs=1, echo=True, stop="x")),
    (
        "/v1/responses",
        {
            "model": MODEL_ID, "instructions": "Be brief.", "temperature": 0.5, "max_output_tokens": 4, "stream": True,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi \u00e9"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "7"},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}],
            "text": {"format": {"type": "text"}}, "metadata": {"a": "b"}, "tool_choice": "none", "top_logprobs": 1,
            "include": ["message.output_text.logprobs"],
        },
    ),
    ("/tokenize", {"model": MODEL_ID, "prompt": "Hi", "add_special_tokens": True, "return_token_strs": True}),
    ("/detokenize", {"model": MODEL_ID, "tokens": [5, 6, 7]}),
    ("/v1/messages", BODIES_OF_CLIENTS["a coding agent"]),
    ("/v1/messages/count_tokens", BODIES_OF_CLIENTS["a whole message handed back"]),
    (
        "/api/chat",
        {
            "model": MODEL_ID, "messages": [{"role": "user", "content": "Hi"}], "stream": True, "keep_alive": "5m",
            "options": {"num_predict": 4, "temperature": 0.5, "stop": ["x"], "num_ctx": 8}, "format": {"type": "object"},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], "think": False,
        },
    ),
    ("/api/generate", {"model": MODEL_ID, "prompt": "Hi", "system": "s", "context": [5, 6], "raw": False, "logprobs": True}),
    ("/api/show", {"model": MODEL_ID, "verbose": True}),
    ("/api/pull", {"name": MODEL_ID, "insecure": False, "stream": True}),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, -0.0, 4096, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308,
    "", "x", "0", "null", "NaN",
    "\x00", "\u2028", "\ufffe", "a" * 300, "a" * 5000, [], [[]], [None], [0], ["x"], [True], [1.5], {}, {"x": 1}, {"": None},
    {"type": "text"}, {"role": "user"}, [{"role": "user", "content": "x"}], [{"type": "text", "text": "x"}],
]  # fmt: skip
RAW = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", '"\\ud800"', '"\\udfff\\ud800"', "9" * 5000, "[" * 70 + "]" * 70,
       '{"a":1,"a":2}', "01", "+1", ".5", "1.", "0x1", "'x'", "undefined", '"\t"', "tru", "[1,]", "{,}", "\ufeff1"]  # fmt: skip
STATUSES = {200, 400, 404, 413}
CODES = {
    "invalid_json", "invalid_value", "missing_required_parameter", "unsupported_parameter", "unknown_parameter",
    "context_length_exceeded", "model_not_found", "request_too_large",
    "invalid_json_schema",
}  # fmt: skip


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where everything in ``value`` is, itself included."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += paths_of(item, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Callable[[Any], Any]) -> Any:
    if not path:
        return new(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def mutated(body: Any, rng: random.Random) -> bytes:
    kind = rng.randrange(10)
    where = rng.choice(paths_of(body))
    if kind < 4:  # another value, of whatever type
        return json.dumps(replaced(body, where, lambda _: rng.choice(VALUES))).encode()
    if kind < 6:  # something that is no JSON, or JSON nobody can mean
        marked = json.dumps(replaced(body, where, lambda _: "@@"))
        return marked.replace('"@@"', rng.choice(RAW)).encode()
    if kind == 6:  # a name too many, twice, or nested too deep
        text = json.dumps(body)
        name = rng.choice([*body, "tools", "foo", "x" * 5000])
        return f'{{"{name}": {json.dumps(rng.choice(VALUES))}, {text[1:]}'.encode()
    if kind == 7:  # another encoding
        return json.dumps(body, ensure_ascii=False).encode(
            rng.choice(["utf-16", "utf-16-be", "utf-32", "utf-7", "utf-8-sig"])
        )
    if kind == 8:  # bytes flipped, cut or repeated
        raw = bytearray(json.dumps(body, ensure_ascii=False).encode())
        at = rng.randrange(len(raw))
        match rng.randrange(3):
            case 0:
                raw[at] = rng.randrange(256)
            case 1:
                del raw[at:]
            case _:
                raw[at:at] = raw[at : at + rng.randrange(1, 50)]
        return bytes(raw)
    if rng.random() < 0.9:  # a name missing
        rest = {name: value for name, value in body.items() if name != rng.choice(list(body))}
        return json.dumps(rest).encode()
    return json.dumps({**body, "user": "x" * (4 * 1024 * 1024 + rng.randrange(-200, 200))}).encode()


def test_mutated_bodies_get_only_the_errors_of_the_contract() -> None:
    rng = random.Random(20)
    asgi = Asgi(FakeEngine(), ServerSettings())
    seen: Counter[str] = Counter()

    async def run() -> None:
        for number in range(NUM_MUTATIONS):
            path, body = BASES[number % len(BASES)]
            content = mutated(body, rng)
            answer = await asgi.arequest("POST", path, content, JSON)
            assert answer.status in STATUSES, (number, answer.status, content[:500])
            if answer.status != 200:
                assert len(answer.body) <= 4096
            if answer.status != 200 and wire_of(path) is Wire.ANTHROPIC:
                assert set(answer.error) == {"message", "type", "details"}
                seen[answer.error["details"]["error_code"]] += 1
            elif answer.status != 200 and wire_of(path) is Wire.OLLAMA:
                assert list(answer.json) == ["error"]
                assert 0 < len(answer.error["message"]) <= 4000
            elif answer.status != 200:
                assert answer.error["code"] in CODES, (number, answer.body)
                assert answer.error["type"] == "invalid_request_error"
                assert set(answer.error) == {"message", "type", "param", "code"}
                seen[answer.error["code"]] += 1
            elif answer.headers["content-type"] == "application/x-ndjson":
                assert b'"error"' not in answer.body
            elif answer.headers["content-type"] == "text/event-stream":
                assert re.search(rb'"error": ?\{', answer.body) is None

    asyncio.run(run())
    assert set(seen) == CODES  # the mutations reach every one of them
