"""The core's forward: near the float32 reference, the same however rows are cut, on each instruction set."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gemma3 import cpu
from gemma3.checkpoints.checkpoint import Checkpoint, open_checkpoint
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.load import load_model
from tests.gemma3 import tiny
from tests.gemma3.core_twin import CoreTwin
from tests.gemma3.native import ISAS, needs_native

if cpu.why_unavailable() is None:
    from gemma3.cpu import _native
    from gemma3.cpu.model import CpuModel, RowRequest, Segment
    from gemma3.cpu.packed_layout import PackedLayout, PackedWeights
    from gemma3.cpu.packing import pack

pytestmark = needs_native

NUM_TOKENS = 150
NUM_BLOCKS = 20
Floats = NDArray[np.float32]


def checkpoint_of(folder: Path, seed: int, **sizes: int) -> Checkpoint:
    """A window that the text grows out of, several chunks of keys, odd sizes."""
    shape = tiny.random_shape(random.Random(seed)) | {"sliding_window": 21, "max_position_embeddings": 512} | sizes
    return open_checkpoint(tiny.save_directory(folder, tiny.oracle_model(shape, seed)))


def core_of(checkpoint: Checkpoint, scheme: str = "int8", **options: object) -> "CpuModel":
    return core_over(checkpoint, packed_weights(checkpoint, scheme), **options)


def packed_weights(checkpoint: Checkpoint, scheme: str) -> "PackedWeights":
    layout = PackedLayout.of(checkpoint.config, scheme)
    return PackedWeights(scheme, layout.views(pack(checkpoint, layout)))


def core_over(checkpoint: Checkpoint, weights: "PackedWeights", **options: object) -> "CpuModel":
    model = CpuModel(checkpoint.config, weights, **{"num_threads": 2} | options)
    model.allocate_kv(2 * NUM_BLOCKS, 2 * NUM_BLOCKS)
    return model


def segment(start: int, num_tokens: int, *, first_block: int = 0) -> "Segment":
    table = list(range(first_block, first_block + NUM_BLOCKS))
    return Segment(start, num_tokens, table, table, 0)


def token_ids(checkpoint: Checkpoint, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(checkpoint.config.vocab_size) for _ in range(NUM_TOKENS)]


def whole_logits(model: "CpuModel", ids: list[int]) -> Floats:
    return model.logits(ids, [segment(0, len(ids))], list(range(len(ids))))


@torch.inference_mode()
def reference_logits(checkpoint: Checkpoint, ids: list[int]) -> Floats:
    model = load_model(checkpoint, dtype="float32")
    return model.compute_logits(model.step(torch.tensor(ids), ContiguousKVCache(checkpoint.config))).numpy()


def distance(found: Floats, expected: Floats) -> float:
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def row_distances(found: Floats, expected: Floats) -> Floats:
    return np.sqrt(np.square(found - expected).mean(1) / np.square(expected).mean(1))


@pytest.mark.parametrize("seed", range(6))
def test_near_the_reference(tmp_path: Path, seed: int) -> None:
    """How well int8 stands for float32; whether the core computes what int8 and int4 say is the next tests' matter."""
    checkpoint = checkpoint_of(tmp_path / "model", seed)
    ids = token_ids(checkpoint)
    expected = reference_logits(checkpoint, ids)
    for isa in _native.supported_isas():
        assert distance(whole_logits(core_of(checkpoint, isa=isa), ids), expected) < 0.06, isa


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("seed", range(6))
def test_computes_what_the_packed_weights_say(tmp_path: Path, seed: int, scheme: str) -> None:
    """A deep model against its twin. One value that the two round apart in an early layer moves a few in each later one, up
    to about 0.013 of all; no more comes of roundings. The distance to float32 is five times as much with int8, 30 with int4."""
    checkpoint = checkpoint_of(tmp_path / "model", seed)
    ids, weights = token_ids(checkpoint), packed_weights(checkpoint, scheme)
    for isa in _native.supported_isas():
        expected = CoreTwin(checkpoint.config, weights.tensors, isa).logits(ids)
        assert distance(whole_logits(core_over(checkpoint, weights, isa=isa), ids), expected) < 0.025, isa


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("seed", range(6))
def test_computes_it_to_float32(tmp_path: Path, seed: int, scheme: str) -> None:
    """With a sliding and a global layer, rows of logits agree to seven digits until two round a value apart, which moves all
    rows that see it. Three texts, so that a quarter of the rows come before that."""
    checkpoint = checkpoint_of(tmp_path / "model", seed, num_hidden_layers=2, sliding_window_pattern=2)
    weights, all_ids = packed_weights(checkpoint, scheme), [token_ids(checkpoint, i) for i in range(3)]
    for isa in _native.supported_isas():
        model, twin = core_over(checkpoint, weights, isa=isa), CoreTwin(checkpoint.config, weights.tensors, isa)
        distances = np.concatenate([row_distances(whole_logits(model, ids), twin.logits(ids)) for ids in all_ids])
        assert np.quantile(distances, 0.25) < 1e-6, isa
        assert distances.max() < 0.03, isa


def test_computes_it_at_the_last_positions(tmp_path: Path) -> None:
    """Behind 32,748 keys and values of zero."""
    checkpoint = checkpoint_of(tmp_path / "model", 7, num_hidden_layers=2, sliding_window_pattern=2)
    weights, num_tokens, num_blocks = packed_weights(checkpoint, "int8"), 20, 32_768 // 16
    ids, start, table = token_ids(checkpoint)[:num_tokens], 32_768 - num_tokens, list(range(num_blocks))
    for isa in _native.supported_isas():
        model = core_over(checkpoint, weights, isa=isa)
        model.allocate_kv(num_blocks, num_blocks)
        found = model.logits(ids, [Segment(start, num_tokens, table, table, 0)], list(range(num_tokens)))
        expected = CoreTwin(checkpoint.config, weights.tensors, isa).logits(ids, start)
        assert np.quantile(row_distances(found, expected), 0.25) < 1e-6, isa


@pytest.mark.parametrize("isa", ISAS)
def test_the_same_bits_however_rows_are_cut(tmp_path: Path, isa: str) -> None:
    """Whole, in chunks, token by token, beside another sequence, and on any number of threads."""
    if isa not in _native.supported_isas():
        pytest.skip(f"this processor has no {isa}")
    checkpoint = checkpoint_of(tmp_path / "model", 3)
    ids, others = token_ids(checkpoint), token_ids(checkpoint, 1)
    for scheme in ("int8", "int4"):
        model = core_of(checkpoint, scheme, isa=isa)
        expected = whole_logits(model, ids)
        for cut in ([1] * NUM_TOKENS, [37, 1, 1, 61, 2, 3, 45], [128, 22], [149, 1], [3, 147]):
            found, start = [], 0
            for num in cut:
                mine = segment(start, num, first_block=NUM_BLOCKS)
                beside = segment(start, num)
                ids_of_step = others[start : start + num] + ids[start : start + num]
                found.append(model.logits(ids_of_step, [beside, mine], list(range(num, 2 * num))))
                start += num
            np.testing.assert_array_equal(np.concatenate(found), expected)
        for num_threads in (1, 3):
            other = core_of(checkpoint, scheme, isa=isa, num_threads=num_threads)
            np.testing.assert_array_equal(whole_logits(other, ids), expected)


def test_greedy_is_the_largest_logit(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path / "model", 4)
    ids, model = token_ids(checkpoint), core_of(checkpoint)
    expected = whole_logits(model, ids).argmax(-1).tolist()
    rows = [RowRequest(i) for i in range(NUM_TOKENS)]
    assert [sampled.token_id for sampled in model.step(ids, [segment(0, NUM_TOKENS)], rows)] == expected


def test_a_table_that_slid(tmp_path: Path) -> None:
    """Blocks that left the window are not needed, nor read."""
    checkpoint = checkpoint_of(tmp_path / "model", 5)
    ids, model = token_ids(checkpoint), core_of(checkpoint)
    expected = whole_logits(model, ids)[-1:]
    table = list(range(NUM_BLOCKS))
    first = (NUM_TOKENS - 1 - 21 + 1) // 16
    model.logits(ids[:-1], [segment(0, NUM_TOKENS - 1)], [0])
    slid = Segment(NUM_TOKENS - 1, 1, table, table[first:], first)
    np.testing.assert_array_equal(model.logits(ids[-1:], [slid], [0]), expected)


def test_what_is_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path / "model", 6)
    model, table = core_of(checkpoint), list(range(NUM_BLOCKS))
    vocab_size = checkpoint.config.vocab_size
    for words, ids, wanted, row in (
        ("outside the vocabulary", [vocab_size], segment(0, 1), 0),
        ("outside the vocabulary", [-1], segment(0, 1), 0),
        ("not one of the step's", [1], segment(0, 1), 1),
        ("do not reach", [1], Segment(16 * NUM_BLOCKS, 1, table, table, 0), 0),
        ("do not reach", [1], Segment(100, 1, table, table[6:], 6), 0),
        ("does not exist", [1], Segment(0, 1, [2 * NUM_BLOCKS], [0], 0), 0),
        ("does not exist", [1], Segment(0, 1, [0], [-1], 0), 0),
        ("token_ids", [1, 2], segment(0, 1), 0),
    ):
        with pytest.raises(ValueError, match=words):
            model.step(ids, [wanted], [RowRequest(row)])
    with pytest.raises(ValueError, match="isa='vax' is not allowed"):
        core_of(checkpoint, isa="vax")


@pytest.mark.parametrize(
    ("start", "num_tokens", "first_sliding_block"),
    [
        (2**31 - 1, 2, 0),
        (2**31 - 1, 1, 0),
        (2**31 - 2, 2, 2**27 - 2),
        (0, 1, 2**31 - 1),
        (2**31 - 1, 2**31 - 1, 2**31 - 1),
    ],
)
def test_positions_up_to_the_largest_int_are_refused(
    tmp_path: Path, start: int, num_tokens: int, first_sliding_block: int
) -> None:
    """Their sums are beyond an int: an overflow would look like a position that the block tables reach."""
    model = core_of(checkpoint_of(tmp_path / "model", 6))
    with pytest.raises(ValueError, match="do not reach"):
        model.step([1, 1], [Segment(start, num_tokens, [0], [0], first_sliding_block)], [RowRequest(0)])


def test_one_thread_at_a_time(tmp_path: Path) -> None:
    """A step releases the GIL: a second thread gets an error, and the first the right tokens."""
    checkpoint = checkpoint_of(tmp_path / "model", 4)
    ids, model = token_ids(checkpoint), core_of(checkpoint, num_threads=1)
    found: list[int] = []
    refused: list[str] = []

    def compute() -> None:
        for _ in range(20):
            try:
                (sampled,) = model.step(ids, [segment(0, NUM_TOKENS)], [RowRequest(NUM_TOKENS - 1)])
                found.append(sampled.token_id)
            except RuntimeError as error:
                refused.append(str(error))

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(compute) for _ in range(2)]:
            future.result()
    assert set(refused) == {"the model is computing for another thread: one at a time."}
    assert set(found) == {int(whole_logits(model, ids)[-1].argmax())}
