"""What a real server tells of its requests: ``/v1/server`` while they run, and of each token whether it was forced."""

import json
import threading
import time
from typing import Any

import httpx
from openai import OpenAI

from tests.openai_api.real_server import RealServer

MARK = "Xylophone"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "maximum": 99, "minimum": 0},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FIELDS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Anna is 34."}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
    "temperature": 0,
    "max_tokens": 60,
}


def test_a_request_is_seen_while_it_runs(server: RealServer) -> None:
    """Its counts are those of its answer, its text is nowhere, and it goes when it has ended."""

    def look() -> httpx.Response:
        return httpx.get(f"{server.url}/v1/server", timeout=60)

    before = look().json()
    answers: list[dict[str, Any]] = []
    body = {"model": server.model, "prompt": f"{MARK} one two", "max_tokens": 200, "ignore_eos": True}

    def ask() -> None:
        answers.append(httpx.post(f"{server.url}/v1/completions", json=body, timeout=300).json())

    thread = threading.Thread(target=ask)
    thread.start()
    rows: list[dict[str, Any]] = []
    while thread.is_alive():
        told = look()
        assert MARK not in told.text
        rows += told.json()["requests"]
        time.sleep(0.01)
    thread.join()
    usage, after = answers[0]["usage"], look().json()
    assert after["requests"] == []
    assert answers[0]["id"].startswith(rows[0]["id"])
    counts = [row["output_tokens"] for row in rows]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2, "an answer that is not streamed is seen to grow too"
    assert {(row["prompt_tokens"], row["max_output_tokens"]) for row in rows} == {(usage["prompt_tokens"], 200)}
    grown = {name: after["totals"][name] - before["totals"][name] for name in after["totals"]}
    assert grown["output_tokens"] == usage["completion_tokens"]
    assert grown["computed_tokens"] >= usage["completion_tokens"] + usage["prompt_tokens"] - 1
    assert after["model"]["step_bytes"] > 1 << 20
    assert after["kv_cache"]["global_layers"]["used_blocks"] == 0


def test_openai_s_client_reads_what_was_forced(server: RealServer) -> None:
    """And without the field, it reads what it always did."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="x", timeout=120, max_retries=0) as client:
        create = client.chat.completions.create
        plain = create(model=server.model, **FIELDS)
        told = create(model=server.model, logprobs=True, extra_body={"return_forced": True}, **FIELDS)
        chunks = list(create(model=server.model, stream=True, extra_body={"return_forced": True}, **FIELDS))
    assert json.loads(told.choices[0].message.content or "").keys() == {"name", "age"}
    assert "forced" not in plain.choices[0].model_dump()
    assert plain.choices[0].message == told.choices[0].message
    assert plain.usage is not None
    flags = told.choices[0].model_dump()["forced"]
    tokens = told.choices[0].logprobs
    assert tokens is not None
    assert len(flags) == len(tokens.content or ()) == plain.usage.completion_tokens
    assert [
        flag for chunk in chunks for choice in chunk.choices for flag in choice.model_dump().get("forced", [])
    ] == flags
    assert flags[0], "a JSON object begins with its brace"
    assert not all(flags)
