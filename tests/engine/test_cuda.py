"""The engine on a GPU: every greedy answer is the one of the CPU, and in a batch the one it is alone; so is what is drawn.

Skipped, with the reason, where torch sees no GPU. ``tests/gemma3/test_cuda.py`` does the same for the model.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.prefill_pace import Unpaced
from engine.sampling_params import SamplingParams
from tests.engine.engines import GREEDY, load, run, same_until_unsure, tiny_checkpoint
from tests.engine.test_same_answer import answer_alone
from tests.engine.test_sampler import random_logits, random_sequence, sample

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
DEVICE = "cuda"


@pytest.mark.parametrize("reference", ["cpu", DEVICE])
def test_in_a_batch_and_after_prefix_hits(tmp_path: Path, reference: str) -> None:
    """Texts may part only where the two likeliest tokens are as good as equal."""
    path = tiny_checkpoint(tmp_path / "model")
    rng = random.Random(0)
    prompts = {f"{n}": [2, *(rng.randrange(107, 363) for _ in range(n))] for n in (1, 2, 15, 16, 17, 33, 100, 300)}
    expected = answer_alone(path, {"device": reference}, prompts)
    engine = load(path, device=DEVICE)
    for _ in range(2):
        answers = run(engine, prompts)
        for name, want in expected.items():
            assert same_until_unsure(want, answers[name][0]), name
    assert answers["300"][0].num_cached_tokens > 0


def test_in_chunks_and_as_two_of_n(tmp_path: Path) -> None:
    """Prompts in chunks; two answers share the whole blocks of theirs."""
    path = tiny_checkpoint(tmp_path / "model")
    rng = random.Random(1)
    prompts = {f"{n}": [2, *(rng.randrange(107, 363) for _ in range(n))] for n in (7, 40, 130, 200, 300)}
    expected = answer_alone(path, {"device": "cpu"}, prompts)
    engine = load(path, device=DEVICE, max_model_len=340, max_num_batched_tokens=48, kv_cache_memory=1 << 20)
    engine.core.scheduler.pace = Unpaced()
    answers = run(engine, prompts, replace(GREEDY, n=2))
    for name, want in expected.items():
        assert all(same_until_unsure(want, got) for got in answers[name]), name


def test_what_is_told_beside_the_tokens(tmp_path: Path) -> None:
    """Log probabilities of the answer are those of the CPU, also where those of the prompt and ranks are asked for."""
    path = tiny_checkpoint(tmp_path / "model")
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, logprobs=4, prompt_logprobs=3)
    prompts = {"r": [2, *range(150, 230)]}
    for asked in (params, replace(params, prompt_ranks=True), replace(params, logprob_token_ids=(300, 120))):
        want, got = (run(load(path, device=device), prompts, asked)["r"][0] for device in ("cpu", DEVICE))
        assert got.token_ids == want.token_ids
        for told, expected in zip(got.logprobs, want.logprobs, strict=True):
            assert [token_id for token_id, _ in told.top] == [token_id for token_id, _ in expected.top]
            torch.testing.assert_close([told.logprob], [expected.logprob], atol=1e-3, rtol=1e-3)


def test_the_sampler_draws_what_it_draws_on_the_cpu() -> None:
    """Every setting that shapes a row, in batches: equal tokens, log probabilities within float32's rounding."""
    rng = random.Random(5)
    for seed in range(40):
        seqs = [random_sequence(rng) for _ in range(8)]
        logits = random_logits(8, seed)
        for want, got in zip(sample(logits, *seqs), sample(logits.to(DEVICE), *seqs), strict=True):
            assert (got.token_id, got.is_finite, got.rank) == (want.token_id, want.is_finite, want.rank)
            assert [i for i, _ in got.top] == [i for i, _ in want.top]
            assert got.logprob == pytest.approx(want.logprob, abs=1e-4) if want.logprob is not None else True
