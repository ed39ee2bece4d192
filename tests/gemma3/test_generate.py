"""The teaching loop: sampling by invariants, stop strings, windowing."""

import random

import pytest
import torch

from gemma3 import Gemma3Generator, Gemma3Tokenizer
from gemma3.text.window import window
from gemma3.torch_model.generate import Sampler
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.model import Gemma3ForCausalLM
from tests.gemma3 import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def generator() -> Gemma3Generator:
    oracle = tiny.oracle_model(
        tiny.random_shape(random.Random(5)) | {"max_position_embeddings": 64, "vocab_size": 262}, seed=5
    )
    model = Gemma3ForCausalLM(tiny.config_of(oracle))
    model.load_state_dict(tiny.weights_of(oracle))
    model.model.embed_tokens.weight.data.mul_(0.1)  # flat enough that draws differ
    # Row 1 is the end token: these tests want answers of full length.
    model.model.embed_tokens.weight.data[1] = 0
    return Gemma3Generator(model.requires_grad_(False), Gemma3Tokenizer())


def token_ids(generator: Gemma3Generator, **settings: object) -> list[int]:
    return [token.token_id for token in generator.stream([2, 70, 71, 72], **settings)]


def test_greedy_equals_full_recomputation(generator: Gemma3Generator) -> None:
    model, ids = generator.model, [2, 70, 71, 72]
    for _ in range(20):
        hidden = model.step(torch.tensor(ids), ContiguousKVCache(model.config))
        ids.append(int(model.compute_logits(hidden[-1:]).argmax()))
    assert token_ids(generator, max_new_tokens=20)[:20] == ids[4:]


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_one_candidate_equals_greedy(generator: Gemma3Generator, settings: dict[str, float]) -> None:
    drawn = token_ids(generator, temperature=1.5, seed=1, max_new_tokens=20, **settings)
    assert drawn == token_ids(generator, max_new_tokens=20)


def test_seed_repeats_the_text(generator: Gemma3Generator) -> None:
    first, again, other = (token_ids(generator, temperature=1.0, seed=seed, max_new_tokens=30) for seed in (7, 7, 8))
    assert first == again != other


def test_draws_follow_the_distribution() -> None:
    """10,000 draws at temperature 2 with top-p 0.9: frequencies within 4 standard deviations, nothing outside the nucleus."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -8.0])
    probs = (logits / 2).softmax(-1)
    kept = probs[:4] / probs[:4].sum()  # the first three hold 0.87, the fourth reaches 0.9
    sampler = Sampler(2.0, None, 0.9, 3, CPU)
    counts = torch.bincount(torch.tensor([sampler(logits) for _ in range(10_000)]), minlength=5) / 10_000
    assert counts[4] == 0
    assert ((counts[:4] - kept).abs() < 4 * (kept * (1 - kept) / 10_000).sqrt()).all()


def test_context_restarts_when_it_is_full(generator: Gemma3Generator) -> None:
    assert generator.model.config.context_length == 64
    assert len(token_ids(generator, max_new_tokens=150)) == 151  # and the closing chunk


@pytest.mark.parametrize(
    ("num_prompt", "num_new", "expected"),
    [(10, 50, 10), (64, 10, 54), (64, 64, 32), (1_000, 1, 63), (1_000, 1_000, 32)],
)
def test_window_leaves_room(num_prompt: int, num_new: int, expected: int) -> None:
    ids = list(range(num_prompt))
    assert list(window(ids, context_length=64, max_new_tokens=num_new)) == ids[-expected:]


def test_stop_string_ends_the_text(generator: Gemma3Generator) -> None:
    whole = generator.generate([2, 70, 71, 72], max_new_tokens=40)
    stop = whole[12:15]
    assert generator.generate([2, 70, 71, 72], max_new_tokens=40, stop=stop) == whole[: whole.index(stop)]
