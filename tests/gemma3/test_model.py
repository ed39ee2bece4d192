"""The reference model against transformers on 20 random tiny shapes; cached, chunked and ragged against whole."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.tensor_names import expected_shapes
from gemma3.torch_model.attention import Segment
from gemma3.torch_model.kv_cache import ContiguousKVCache, visible
from gemma3.torch_model.load import build_model, load_tensors
from gemma3.torch_model.model import Gemma3ForCausalLM
from tests.gemma3 import tiny

NUM_TOKENS = 60
SEEDS = range(20)


def build(seed: int) -> tuple[Gemma3ForCausalLM, Tensor, Tensor]:
    """A model, token ids, and transformers' logits for them."""
    oracle = tiny.oracle_model(tiny.random_shape(random.Random(seed)), seed)
    model = Gemma3ForCausalLM(tiny.config_of(oracle))
    model.load_state_dict(tiny.weights_of(oracle))
    token_ids = torch.randint(0, tiny.VOCAB, (NUM_TOKENS,))
    return model.requires_grad_(False), token_ids, oracle(token_ids[None]).logits[0]


def random_cuts(rng: random.Random, total: int) -> list[int]:
    """Random chunk sizes that sum to ``total``, many of them 1."""
    sizes: list[int] = []
    while (left := total - sum(sizes)) > 0:
        sizes.append(min(left, rng.choice((1, 1, 2, 5, 17, 30))))
    return sizes


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_transformers(seed: int) -> None:
    model, token_ids, expected = build(seed)
    logits = model.compute_logits(model.step(token_ids, ContiguousKVCache(model.config)))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_chunked_equals_whole(seed: int) -> None:
    model, token_ids, expected = build(seed)
    cache = ContiguousKVCache(model.config)
    chunks = token_ids.split(random_cuts(random.Random(seed), NUM_TOKENS))
    logits = torch.cat([model.compute_logits(model.step(chunk, cache)) for chunk in chunks])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_ragged_batch_equals_alone(seed: int) -> None:
    """Five sequences, each at its own place, advance together by chunks of different lengths."""
    model, token_ids, _ = build(seed)
    rng = random.Random(seed)
    sequences = [token_ids[: rng.randint(1, NUM_TOKENS)] for _ in range(5)]
    cuts = [list(sequence.split(random_cuts(rng, len(sequence)))) for sequence in sequences]
    caches = [ContiguousKVCache(model.config) for _ in sequences]
    rows: list[list[Tensor]] = [[] for _ in sequences]
    while any(cuts):
        active = [i for i, chunks in enumerate(cuts) if chunks]
        logits = _ragged_step(model, [cuts[i].pop(0) for i in active], [caches[i] for i in active])
        for i, together in zip(active, logits, strict=True):
            rows[i].append(together)
    for sequence, together in zip(sequences, rows, strict=True):
        alone = model.compute_logits(model.step(sequence, ContiguousKVCache(model.config)))
        torch.testing.assert_close(torch.cat(together), alone, atol=1e-4, rtol=0)


def _ragged_step(model: Gemma3ForCausalLM, chunks: list[Tensor], caches: list[ContiguousKVCache]) -> list[Tensor]:
    firsts = [cache.num_tokens for cache in caches]
    positions = torch.cat(
        [torch.arange(first, first + len(chunk)) for first, chunk in zip(firsts, chunks, strict=True)]
    )
    ends = torch.tensor([len(chunk) for chunk in chunks]).cumsum(0).tolist()
    segments = [Segment(end - len(chunk), end, cache) for chunk, end, cache in zip(chunks, ends, caches, strict=True)]
    logits = model.compute_logits(model(torch.cat(chunks), positions, segments))
    return list(logits.split([len(chunk) for chunk in chunks]))


def test_expected_shapes_are_the_models() -> None:
    model, *_ = build(3)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == expected_shapes(model.config)


def test_parameter_count_of_the_270m() -> None:
    with torch.device("meta"):
        model = Gemma3ForCausalLM(tiny.Gemma3TextConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 268_098_176


def test_all_of_a_model_goes_to_its_device(tmp_path: Path) -> None:
    """The numbers that no checkpoint holds as well: a GPU refuses to add them to its own."""
    checkpoint = open_checkpoint(
        tiny.save_directory(tmp_path / "model", tiny.oracle_model(tiny.random_shape(random.Random(0)), 0))
    )
    model = build_model(checkpoint, load_tensors(checkpoint, "float32"), torch.device("meta"))
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


def test_visible_worked_example() -> None:
    """Window 3, two new tokens at keys 3 and 4: the first sees keys 1..3, the second 2..4."""
    seen = visible(2, 5, 3, torch.device("cpu"))
    assert seen.tolist() == [[False, True, True, True, False], [False, False, True, True, True]]


def test_sliding_cache_stays_small() -> None:
    model, token_ids, _ = build(0)
    cache = ContiguousKVCache(model.config)
    for _ in range(30):
        model.step(token_ids[:20], cache)
    sliding = [layer for i, layer in enumerate(cache._layers) if model.config.window(i) is not None]
    assert all(layer._k.shape[0] <= 128 for layer in sliding)
