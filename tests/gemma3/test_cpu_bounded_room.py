"""Rows that would need more memory than the bounded head has: they get all logits, which give the same bits."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.token_mask import mask_of
from gemma3 import cpu
from tests.gemma3.native import needs_native
from tests.gemma3.test_cpu_masked_head import choose, request, told
from tests.gemma3.test_cpu_model import NUM_BLOCKS, checkpoint_of, packed_weights, segment

if cpu.why_unavailable() is None:
    from gemma3.cpu import _native
    from gemma3.cpu.model import CpuModel
    from gemma3.cpu.packed_layout import PackedWeights

pytestmark = needs_native

VOCAB = 131_072  # 8,192 panels: twice as many as a row may keep
NUM_ROWS = 4
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> "CpuModel":
    return flat_model(tmp_path_factory.mktemp("room") / "model")


def flat_model(folder: Path) -> "CpuModel":
    """All ids are about as likely: the bounds of all panels reach those of the likeliest ids."""
    checkpoint = checkpoint_of(folder, 8, num_hidden_layers=1, hidden_size=128)
    numbers = np.random.default_rng(3)
    planes = {f"embedding.{name}": np.frombuffer(numbers.bytes(VOCAB * 64), np.uint8) for name in ("high", "low")}
    tensors = packed_weights(checkpoint, "int8").tensors | {name: memoryview(plane) for name, plane in planes.items()}
    scales = np.full(VOCAB, 1e-5, np.float32)
    weights = PackedWeights("int8", tensors | {"embedding.scales": memoryview(scales.view(np.uint8))})
    model = CpuModel(dataclasses.replace(checkpoint.config, vocab_size=VOCAB), weights, num_threads=2)
    model.allocate_kv(NUM_BLOCKS, NUM_BLOCKS)
    return model


SETTINGS: list[dict[str, object]] = [
    {"temperature": 1.0, "top_k": 256},  # the panels that set the bar are too many
    {"temperature": 1.0, "top_k": 64, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 256, "num_logprobs": 5},  # peaks are exact: few panels
    {},
    {"temperature": 1.0},
    {"repetition_penalty": 0.9, "seen": list(range(0, VOCAB, 16))},  # every panel is raised
    {"target": 9, "num_logprobs": 0, "reported": list(range(5, VOCAB, 16)), "wants_rank": True},
    {"num_logprobs": 2, "reported": list(range(5, VOCAB, 16))},
    {"temperature": 1.0, "top_k": 100, "allowed": mask_of(list(range(0, VOCAB, 8)))},
]


def test_rows_without_room_get_all_logits(model: "CpuModel") -> None:
    """Alone, beside others, and more of them than find room together."""
    ids = random.Random(1).sample(range(VOCAB), NUM_ROWS)
    logits = model.logits(ids, [segment(0, NUM_ROWS)], list(range(NUM_ROWS)))
    rows, expected = [], []
    for number, settings in enumerate(SETTINGS):
        plain = dict(settings)
        row = number % NUM_ROWS
        wanted = request(row, plain.pop("allowed", b""), plain)
        rows.append(wanted)
        expected.append(told(_native.sample(logits[row].copy(), wanted)))
    assert choose(model, ids, rows) == expected
    assert [choose(model, ids, [wanted])[0] for wanted in rows] == expected
    assert choose(model, ids, 9 * rows) == 9 * expected
