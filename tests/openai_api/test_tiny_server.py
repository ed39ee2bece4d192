"""A whole server over a tiny model: what crosses all layers, from a request's field to the core and back."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
import pytest
import torch

from engine.async_engine import AsyncLLMEngine
from engine.engine_options import EngineOptions
from openai_api.settings import ServerSettings
from tests.engine.engines import tiny_checkpoint
from tests.gemma3 import tiny
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import LiveServer, live_server, wait_until
from tests.openai_api.test_monitoring import samples

PROMPT = [2, 150, 151, 152, 150, 151]
DISTANCE = 2e-4  # between float32 log probabilities of transformers and of ours


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("served") / "tiny"))


@pytest.fixture(scope="module")
def server(path: str) -> Iterator[LiveServer]:
    options = EngineOptions(model=path, dtype="float32", kv_cache_memory=64 << 20, max_num_seqs=16)
    engine = AsyncLLMEngine.from_options(options)
    with live_server(cast(FakeEngine, engine), ServerSettings()) as live:
        wait_until(lambda: httpx.get(f"{live.url}/health").status_code == 200, timeout_s=60)
        yield live


@pytest.fixture(scope="module")
def oracle(path: str) -> tiny.OracleModel:
    return tiny.OracleModel.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def complete(server: LiveServer, **fields: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "temperature": 0, "max_tokens": 3, "ignore_eos": True, **fields}
    answer = httpx.post(f"{server.url}/v1/completions", json={"model": "tiny", **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def logprobs_after(oracle: tiny.OracleModel, token_ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return cast(torch.Tensor, oracle(torch.tensor([token_ids])).logits[0]).log_softmax(-1)


def test_a_prompt_s_log_probabilities_are_the_model_s(server: LiveServer, oracle: tiny.OracleModel) -> None:
    rows = logprobs_after(oracle, PROMPT)
    first, *entries = complete(server, prompt_logprobs=2)["prompt_logprobs"]
    assert first is None
    for row, token_id, entry in zip(rows, PROMPT[1:], entries, strict=False):
        own = entry[str(token_id)]
        assert own["logprob"] == pytest.approx(float(row[token_id]), abs=DISTANCE)
        assert own["rank"] == 1 + int((row > row[token_id]).sum())
        top = row.topk(2)
        assert set(entry) == {str(token_id), *map(str, top.indices.tolist())}
        for i, (other, logprob) in enumerate(zip(top.indices.tolist(), top.values.tolist(), strict=True), start=1):
            assert entry[str(other)]["rank"] == i
            assert entry[str(other)]["logprob"] == pytest.approx(logprob, abs=DISTANCE)


def test_labels_are_scored_and_chosen(server: LiveServer, oracle: tiny.OracleModel) -> None:
    """As people label: one token of a few, with the log probability of each."""
    labels = [300, 120, 362]
    fields = {"allowed_token_ids": labels, "logprobs": 1, "logprob_token_ids": labels, "max_tokens": 1}
    choice = complete(server, **fields, return_token_ids=True, return_tokens_as_token_ids=True)
    row = logprobs_after(oracle, PROMPT)[-1]
    (told,) = choice["logprobs"]["top_logprobs"]
    assert told == {f"token_id:{i}": pytest.approx(float(row[i]), abs=DISTANCE) for i in labels}
    assert choice["token_ids"] == [max(labels, key=lambda i: float(row[i]))]
    assert choice["logprobs"]["tokens"] == [f"token_id:{choice['token_ids'][0]}"]


def test_nothing_left_to_choose_is_no_failure_of_ours(server: LiveServer) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "allowed_token_ids": [1], "min_tokens": 2, "max_tokens": 4}
    answer = httpx.post(f"{server.url}/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "allowed_token_ids")
    assert complete(server, allowed_token_ids=[1, 9], min_tokens=2, max_tokens=4, ignore_eos=False)["text"]


def test_what_the_metrics_count_of_one_request(server: LiveServer) -> None:
    """Two requests whose only token comes with their prompt: a step of six tokens and one of two."""
    before = samples(httpx.get(f"{server.url}/metrics").text)
    prompt = [2, 170, 180, 190, 200, 210]  # no pair comes twice, so nothing is guessed
    complete(server, prompt=prompt, max_tokens=1)
    complete(server, prompt=[2, 171], max_tokens=1, allowed_token_ids=[300])
    after = samples(httpx.get(f"{server.url}/metrics").text)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["iteration_tokens_total_count"] == 2
    assert grown["iteration_tokens_total_sum"] == 6 + 2
    assert grown["iteration_tokens_total_bucket{8.0}"] == 2
    assert grown["iteration_tokens_total_bucket{1.0}"] == 0
    assert grown["request_params_n_sum"] == 2
    assert grown["request_prefill_time_seconds_count"] == grown["request_decode_time_seconds_count"] == 2
    assert grown["request_decode_time_seconds_sum"] == 0, "the first token was the last"
    assert grown["request_prefill_time_seconds_sum"] > 0, "it came with the first step, which is no time in the queue"
    assert grown["request_inference_time_seconds_sum"] == pytest.approx(grown["request_prefill_time_seconds_sum"])
    assert grown["num_preemptions_total"] == 0
    (config,) = (name for name in after if name.startswith("cache_config_info"))
    assert config.startswith("cache_config_info{16,float32,True,67108864,")
    assert after[config] == 1


def test_a_flexible_request_gives_way_and_says_the_same(server: LiveServer) -> None:
    """It is under way when others come, who end before it goes on."""
    fields = {"max_tokens": 400, "temperature": 1.0, "seed": 5, "return_token_ids": True}
    undisturbed = complete(server, **fields)
    ended: list[str] = []

    def ask(name: str, **more: Any) -> dict[str, Any]:
        choice = complete(server, **more)
        ended.append(name)
        return choice

    with ThreadPoolExecutor(4) as pool:
        flexible = pool.submit(ask, "flexible", **fields, service_tier="flex")
        wait_until(lambda: samples(httpx.get(f"{server.url}/metrics").text)["num_requests_running"] == 1)
        others = [pool.submit(ask, "other", max_tokens=60, seed=seed, prompt=[2, 200 + seed]) for seed in range(3)]
        assert flexible.result() == undisturbed
        assert all(len(other.result()["text"]) > 0 for other in others)
    assert ended == ["other"] * 3 + ["flexible"]


def test_sixty_four_choices_of_a_stream(server: LiveServer) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "n": 64, "max_tokens": 2, "ignore_eos": True, "seed": 3, "stream": True}

    async def finished() -> set[int]:
        indices = set()
        async with (
            httpx.AsyncClient() as client,
            client.stream(
                "POST", f"{server.url}/v1/completions", json=body | {"return_token_ids": True}, timeout=60
            ) as answer,
        ):
            async for line in answer.aiter_lines():
                if '"finish_reason":"length"' in line:
                    indices.add(int(line.split('"index":')[1].split(",")[0]))
        return indices

    assert asyncio.run(finished()) == set(range(64))
