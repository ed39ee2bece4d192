"""Rows that would need more memory than the bounded head has: they get all logits, and a step without memory harms nobody."""

import dataclasses
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.token_mask import mask_of
from gemma3 import cpu
from tests.gemma3.native import needs_native
from tests.gemma3.program import ROOT
from tests.gemma3.test_cpu_masked_head import choose, request, told
from tests.gemma3.test_cpu_model import NUM_BLOCKS, checkpoint_of, packed_weights, segment

if cpu.why_unavailable() is None:
    from gemma3.cpu import _native
    from gemma3.cpu.model import CpuModel, RowRequest
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


def vm_bytes() -> int:
    """The address space of this process."""
    (kib,) = re.findall(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kib)


def run_out_of_memory(folder: Path) -> None:
    """In a process of its own: a step that needs 16 MiB where 4 are left, then one that needs little, then the first again."""
    import resource

    model, row = flat_model(folder), RowRequest(0)
    row.temperature, row.uniform = 1.0, 0.5
    ids = [5, 6, 7]
    expected = choose(model, ids, [row])
    resource.setrlimit(resource.RLIMIT_AS, (vm_bytes() + 4 * 2**20, resource.RLIM_INFINITY))
    with pytest.raises(MemoryError):
        choose(model, ids, 32 * [row])
    assert choose(model, ids, [row]) == expected
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert choose(model, ids, 32 * [row]) == 32 * expected
    print("still alive")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space and its size are Linux's")
def test_a_step_for_which_memory_runs_out_fails_and_the_next_does_not(tmp_path: Path) -> None:
    code = f"from tests.gemma3.{Path(__file__).stem} import *; run_out_of_memory(Path({str(tmp_path / 'model')!r}))"
    command = [sys.executable, "-c", code]
    # So that neither what the process has freed nor what glibc has reserved for a thread is room for a buffer.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, result.stdout) == (0, "still alive\n"), result.stderr
