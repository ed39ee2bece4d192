"""Rows whose answer some panels hold: bit for bit what all logits, then sampling give, though few logits are kept.

``sample`` on the row's logits is the twin here; ``test_cpu_sampling.py`` holds it to the definition and to the torch sampler.
"""

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.token_mask import mask_of
from gemma3 import cpu
from tests.gemma3.native import needs_native
from tests.gemma3.test_cpu_masked_head import choose, request, told
from tests.gemma3.test_cpu_model import checkpoint_of, core_over, packed_weights, segment

if cpu.why_unavailable() is None:
    from gemma3.checkpoints.checkpoint import Checkpoint
    from gemma3.cpu import _native
    from gemma3.cpu.model import CpuModel
    from gemma3.cpu.packed_layout import PackedWeights

pytestmark = needs_native

VOCAB = 5_003  # 313 panels, the last of 11 ids
FULL_VOCAB = 262_144
NUM_ROWS = 8
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Checkpoint, PackedWeights]":
    folder = tmp_path_factory.mktemp("bounds") / "model"
    checkpoint = checkpoint_of(folder, 8, vocab_size=VOCAB, num_hidden_layers=1, hidden_size=192)
    return checkpoint, packed_weights(checkpoint, "int8")


def spoilt(weights: "PackedWeights", kind: str) -> "PackedWeights":
    """Weights whose logits are hard to tell apart, or no numbers."""
    names = ("embedding.high", "embedding.low", "embedding.scales", "final_norm")
    high, low = (np.frombuffer(weights.tensors[name], np.uint8).copy() for name in names[:2])
    scales, norm = (np.frombuffer(weights.tensors[name], np.float32).copy() for name in names[2:])
    num_distinct = {"ties": 40, "equal": 1}.get(kind)
    if num_distinct:
        same_as = np.random.default_rng(1).integers(num_distinct, size=len(scales))
        for plane in (high, low):
            rows = plane.reshape(len(scales) // 16, -1, 16, 4).swapaxes(1, 2).reshape(len(scales), -1)
            plane[:] = rows[same_as].reshape(len(scales) // 16, 16, -1, 4).swapaxes(1, 2).reshape(-1)
        scales[:] = scales[0]
    scales *= {"zero": 0.0, "steep": 40.0, "flat": 1e-3, "overflowing": 3e37}.get(kind, 1.0)
    norm[0] = math.nan if kind == "no number" else norm[0]
    arrays = zip(names, (high, low, scales, norm), strict=True)
    return PackedWeights("int8", weights.tensors | {name: memoryview(array.view(np.uint8)) for name, array in arrays})


def random_settings(rng: random.Random, logits: Floats) -> dict[str, Any]:
    """Of all kinds; what is touched is often among the likeliest ids."""
    likeliest = np.argpartition(-logits, 400)[:400].tolist()

    def some_ids(most: int) -> list[int]:
        ids = [*rng.sample(likeliest, rng.randrange(most)), *rng.sample(range(len(logits)), rng.randrange(most))]
        return list(dict.fromkeys(ids))

    settings: dict[str, Any] = {"temperature": rng.choice((0.0, 0.0, 1e-45, 0.3, 1.0, 1.0, 2.0))}
    settings["top_k"] = rng.choice((1, 2, 5, 20, 64, 64, 255, 256, 257)) if settings["temperature"] else 0
    settings["top_p"] = rng.choice((1.0, 1.0, 1e-9, 0.5, 0.95))
    settings["min_p"] = rng.choice((0.0, 0.0, 0.02, 1.0))
    if rng.random() < 0.4:
        settings |= {"repetition_penalty": rng.choice((1.15, 1.15, 0.6, 10.0, 1e-38)), "seen": some_ids(200)}
    if rng.random() < 0.3:
        settings |= {"frequency_penalty": rng.choice((0.5, -2.0)), "presence_penalty": rng.choice((0.0, 2.0, -1.0))}
        settings["output_counts"] = [(token_id, rng.randrange(1, 5)) for token_id in some_ids(100)]
    if rng.random() < 0.4:
        sizes = rng.choice(((-100.0, 100.0), (-1.0, 3.0), (3e38, -3e38), (-math.inf,), (0.0,)))
        settings["logit_bias"] = [(token_id, rng.choice(sizes)) for token_id in some_ids(60)]
    if rng.random() < 0.3:
        settings["banned"] = rng.choice((likeliest[:1], likeliest[:300], some_ids(20)))
    return settings | rng.choice(({}, {}, random_report(rng, len(logits))))


def random_report(rng: random.Random, vocab_size: int) -> dict[str, Any]:
    """Log probabilities beside the chosen token, or of one that is given."""
    target = {"target": rng.randrange(vocab_size), "wants_rank": rng.random() < 0.5}
    reported = {"num_logprobs": 3, "reported": rng.sample(range(vocab_size), 7)}
    return rng.choice((reported, {"num_logprobs": rng.choice((0, 1, 5, 20))})) | rng.choice(({}, target))


def random_mask(rng: random.Random, vocab_size: int) -> bytes:
    """Usually none, else too many ids for the panels of the mask alone, or a few, or fewer than are wanted."""
    if rng.random() < 0.7:
        return b""
    return mask_of(rng.sample(range(vocab_size), rng.choice((1, 3, 63, 64, 65, vocab_size // 3, vocab_size - 1))))


def assert_equals_all_logits(model: "CpuModel", logits: Floats, ids: list[int], num_trials: int, seed: int) -> None:
    """In steps of one to forty rows."""
    rng = random.Random(seed)
    rows, expected = [], []
    for _ in range(num_trials):
        row = rng.randrange(NUM_ROWS)
        settings = random_settings(rng, logits[row])
        wanted = request(row, random_mask(rng, logits.shape[1]), settings)
        wanted.uniform = rng.choice((0.0, rng.random(), rng.random(), 1 - 2**-53))
        rows.append(wanted)
        expected.append(repr(told(_native.sample(logits[row].copy(), wanted))))
    begin = 0
    while begin < num_trials:
        end = begin + rng.choice((1, 2, 5, 40))
        assert [repr(each) for each in choose(model, ids, rows[begin:end])] == expected[begin:end]  # NaN equals NaN
        begin = end


KINDS = ["plain", "steep", "flat", "ties", "equal", "zero", "overflowing", "no number"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isa", ["portable", "avx2", "avxvnni", "avx512", "amx"])
def test_equals_all_logits_then_sample(plain: "tuple[Checkpoint, PackedWeights]", isa: str, kind: str) -> None:
    if isa not in _native.supported_isas():
        pytest.skip(f"this processor has no {isa}")
    checkpoint, weights = plain
    ids = random.Random(2).sample(range(VOCAB), NUM_ROWS)
    for num_threads in (1, 3):
        model = core_over(checkpoint, spoilt(weights, kind), isa=isa, num_threads=num_threads)
        logits = model.logits(ids, [segment(0, NUM_ROWS)], list(range(NUM_ROWS)))
        assert np.isfinite(logits).all() == (kind not in ("overflowing", "no number"))
        assert_equals_all_logits(model, logits, ids, 80, num_threads)


def test_equals_all_logits_then_sample_in_the_shape_of_the_real_head(tmp_path: Path) -> None:
    """Random bytes; some ids have large scales, so that bounds leave few panels."""
    checkpoint = checkpoint_of(tmp_path / "model", 8, num_hidden_layers=1, hidden_size=640)
    numbers = np.random.default_rng(3)
    planes = {f"embedding.{name}": np.frombuffer(numbers.bytes(FULL_VOCAB * 320), np.uint8) for name in ("high", "low")}
    scales = (1e-3 * np.exp(0.5 * numbers.standard_normal(FULL_VOCAB))).astype(np.float32)
    tensors = packed_weights(checkpoint, "int8").tensors | {name: memoryview(plane) for name, plane in planes.items()}
    weights = PackedWeights("int8", tensors | {"embedding.scales": memoryview(scales.view(np.uint8))})
    model = CpuModel(dataclasses.replace(checkpoint.config, vocab_size=FULL_VOCAB), weights, num_threads=2)
    model.allocate_kv(20, 20)
    ids = random.Random(4).sample(range(FULL_VOCAB), NUM_ROWS)
    logits = model.logits(ids, [segment(0, NUM_ROWS)], list(range(NUM_ROWS)))
    assert_equals_all_logits(model, logits, ids, 40, 5)
