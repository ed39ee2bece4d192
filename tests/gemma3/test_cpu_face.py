"""The face of the core: how many threads it takes, and what it refuses. What it computes is tested beside the reference."""

import os
import random
import sys
from pathlib import Path

import pytest

pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")

from gemma3.checkpoints.checkpoint import open_checkpoint  # behind the skip, as all that follows
from gemma3.cpu import model as cpu_model
from gemma3.cpu.load import load_packed
from gemma3.cpu.model import CpuModel, RowRequest, Segment, num_cores
from tests.gemma3 import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CpuModel:
    shape = tiny.random_shape(random.Random(4))
    checkpoint = open_checkpoint(
        tiny.save_directory(tmp_path_factory.mktemp("cpu") / "model", tiny.oracle_model(shape, 4))
    )
    model = CpuModel(checkpoint.config, load_packed(checkpoint, "int8"), num_threads=1)
    model.allocate_kv(num_global_blocks=2, num_sliding_blocks=2)
    return model


def test_the_example_of_the_docstring(model: CpuModel) -> None:
    (sampled,) = model.step([2, 150, 151], [Segment(0, 3, [0], [0], 0)], [RowRequest(2)])
    logits_RV = model.logits([2, 150, 151], [Segment(0, 3, [0], [0], 0)], [2])
    assert logits_RV.shape == (1, model.config.vocab_size)
    assert sampled.token_id == int(logits_RV[0].argmax())


@pytest.mark.parametrize(
    ("token_ids", "segment", "row"),
    [
        ([2, 100_000], (0, 2, [0], [0], 0), 1),
        ([2, -1], (0, 2, [0], [0], 0), 1),
        ([2, 3], (0, 2, [0], [0], 0), 2),
        ([2, 3], (0, 1, [0], [0], 0), 1),
        ([2, 3], (0, 2, [2], [0], 0), 1),
        ([2, 3], (0, 2, [0], [-1], 0), 1),
        ([2, 3], (15, 2, [0], [0], 0), 1),
    ],
)
def test_what_is_out_of_range_is_refused(
    model: CpuModel, token_ids: list[int], segment: tuple[int, int, list[int], list[int], int], row: int
) -> None:
    with pytest.raises(ValueError, match=r"."):
        model.step(token_ids, [Segment(*segment)], [RowRequest(row)])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system may leave what was given back as it is")
def test_blocks_that_are_given_back_are_empty(model: CpuModel) -> None:
    """Pages of theirs are zeros then; blocks that stay keep what they hold."""
    num_blocks, size = 64, 16 * 64
    pool_size = 4 * num_blocks  # so that the last block of the text lies within whole pages that go
    blocks, token_ids = list(range(num_blocks)), [i % 100 for i in range(size)]
    model.allocate_kv(pool_size, pool_size)

    def last_logits() -> list[float]:
        values: list[float] = model.logits([7], [Segment(size - 1, 1, blocks, blocks, 0)], [0])[0].tolist()
        return values

    model.step(token_ids, [Segment(0, size, blocks, blocks, 0)], [])
    before = last_logits()
    model.release_blocks([], is_sliding=True)
    assert last_logits() == before
    for is_sliding in (True, False):
        model.release_blocks([*range(8, 40), *range(41, pool_size)], is_sliding=is_sliding)
    assert last_logits() != before
    model.step(token_ids, [Segment(0, size, blocks, blocks, 0)], [])
    assert last_logits() == before
    with pytest.raises(ValueError, match="does not exist"):
        model.release_blocks([pool_size], is_sliding=True)


def test_an_unknown_isa(model: CpuModel, tmp_path: Path) -> None:
    shape = tiny.random_shape(random.Random(4))
    checkpoint = open_checkpoint(tiny.save_directory(tmp_path / "model", tiny.oracle_model(shape, 4)))
    with pytest.raises(ValueError, match="isa='sse9' is not allowed here"):
        CpuModel(checkpoint.config, load_packed(checkpoint, "int8"), isa="sse9")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four logical processors on two cores, and no limit."""
    for cpu in range(4):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cpu_model, "_CPU_FOLDER", tmp_path)
    monkeypatch.setattr(cpu_model, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    return tmp_path


def test_threads_of_one_core_count_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_cores() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})
    assert num_cores() == 1


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 2), ("100000 100000", 1), ("150000 100000", 2), ("1000 100000", 1), ("?", 2)]
)
def test_the_limit_of_a_container(machine: Path, limit: str, expected: int) -> None:
    (machine / "cpu.max").write_text(limit)
    assert num_cores() == expected


def test_a_system_that_tells_nothing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_model, "_CPU_FOLDER", machine / "not there")
    assert num_cores() == 4
