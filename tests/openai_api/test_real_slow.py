"""What takes minutes against the real model: log probabilities against transformers, and being killed."""

import signal
from pathlib import Path

import httpx
import pytest
import torch

from tests.gemma3 import texts
from tests.gemma3.test_real_model import oracle_from_gguf
from tests.openai_api.real_server import real_server, start_server

pytestmark = pytest.mark.slow
PROMPT = {"model": "m", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}


@torch.inference_mode()
def test_echoed_prompt_logprobs_are_those_of_transformers(embedded_gguf: Path) -> None:
    oracle = oracle_from_gguf(embedded_gguf)
    worst = 0.0
    with real_server(
        "--quantization", "none", "--dtype", "float32", "--served-model-name", "m", "--max-model-len", "4096"
    ) as server:
        for text in (*texts.SHORT_PROMPTS, texts.MIXED * 2):
            ids = httpx.post(f"{server.url}/tokenize", json={"prompt": text}).json()["tokens"]
            body = {"model": "m", "prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 0}
            answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).json()
            got = answer["choices"][0]["logprobs"]["token_logprobs"]
            assert got[0] is None
            expected = oracle(torch.tensor([ids])).logits[0].log_softmax(-1)
            for i, token_id in enumerate(ids[1:]):
                worst = max(worst, abs(got[i + 1] - float(expected[i, token_id])))
    print(f"largest difference {worst:.2e}")
    assert worst <= 2e-3


def test_killed_and_started_five_times(embedded_gguf: Path) -> None:
    """Each time the first answer is right."""
    answers = set()
    for _ in range(5):
        server = start_server("--served-model-name", "m")
        try:
            answers.add(
                httpx.post(f"{server.url}/v1/completions", json=PROMPT, timeout=60).json()["choices"][0]["text"]
            )
            server.process.send_signal(signal.SIGKILL)
            assert server.process.wait(timeout=30) == -signal.SIGKILL
        finally:
            server.kill()
    assert answers == {" the capital of the country of France."}
