"""Packed weights hold the checkpoint's: every matrix in its place, for odd sizes and each kind of file."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from gemma3.checkpoints.checkpoint import Checkpoint, open_checkpoint
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD
from gemma3.cpu.packed_layout import NORMS, SCHEMES, PackedLayout, PackedWeights
from gemma3.errors import CheckpointError
from tests.gemma3 import tiny
from tests.gemma3.packed import Floats, rotation, unpack_embedding, unpack_int4, unpack_int8

pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")

from gemma3.cpu.model import CpuModel  # needs the core
from gemma3.cpu.packing import pack, pack_balanced

Views = dict[str, memoryview]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_directory(tmp_path / "model", tiny.oracle_model(tiny.random_shape(random.Random(5)), 5))


def packed_views(checkpoint: Checkpoint, scheme: str) -> Views:
    layout = PackedLayout.of(checkpoint.config, scheme)
    return layout.views(pack(checkpoint, layout))


def read(checkpoint: Checkpoint, name: str) -> Floats:
    return checkpoint.read_rows(f"{name}.weight", slice(None))


def unpack(views: Views, name: str, shape: tuple[int, int], scheme: str) -> Floats:
    """The rows as the checkpoint has them, but for what was rounded away."""
    if f"{name}.multipliers" not in views:
        rotated = unpack_int8(views[f"{name}.panels"], views[f"{name}.scales"], shape)
    else:
        rotated = unpack_int4(*(views[f"{name}.{part}"] for part in ("panels", "multipliers", "scales")), shape)
    return rotated @ rotation(shape[1])


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32], scheme: str) -> None:
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < (0.01 if scheme == "int8" else 0.12)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", range(6))
def test_every_tensor_is_in_its_place(tmp_path: Path, seed: int, scheme: str) -> None:
    shape = tiny.random_shape(random.Random(seed))
    checkpoint = open_checkpoint(tiny.save_directory(tmp_path / "model", tiny.oracle_model(shape, seed)))
    views, mlp = packed_views(checkpoint, scheme), checkpoint.config.intermediate_size
    for i in range(checkpoint.config.num_hidden_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        qkv = np.concatenate([read(checkpoint, f"{theirs}.self_attn.{part}_proj") for part in "qkv"])
        assert_close(unpack(views, f"{ours}.qkv", qkv.shape, scheme), qkv, scheme)
        for name, inner in (("o", "self_attn.o_proj"), ("down", "mlp.down_proj")):
            expected = read(checkpoint, f"{theirs}.{inner}")
            assert_close(unpack(views, f"{ours}.{name}", expected.shape, scheme), expected, scheme)
        num_panels = -(-mlp // 16)
        gate_up = unpack(views, f"{ours}.gate_up", (32 * num_panels, checkpoint.config.hidden_size), scheme)
        halves = gate_up.reshape(num_panels, 2, 16, -1).swapaxes(0, 1).reshape(2, 16 * num_panels, -1)[:, :mlp]
        for half, inner in zip(halves, ("gate_proj", "up_proj"), strict=True):
            assert_close(half, read(checkpoint, f"{theirs}.mlp.{inner}"), scheme)
        for norm, inner in NORMS.items():
            expected = read(checkpoint, f"{theirs}.{inner}")
            np.testing.assert_allclose(np.frombuffer(views[f"{ours}.{norm}"], np.float32), expected, rtol=0, atol=1e-6)
    embedding = read(checkpoint, "model.embed_tokens")
    planes = [views[f"embedding.{part}"] for part in ("high", "low", "scales")]
    assert_close(unpack_embedding(*planes, embedding.shape) @ rotation(embedding.shape[1]), embedding, "int8")


def test_an_embedding_of_several_slabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Slabs of 48 rows give the bytes that one slab gives."""
    checkpoint = open_checkpoint(folder)
    whole = packed_views(checkpoint, "int8")
    monkeypatch.setattr("gemma3.cpu.packing._SLAB_ROWS", 48)
    assert packed_views(checkpoint, "int8") == whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_all_kinds_of_files_give_the_same_bytes(tmp_path: Path, dtype: torch.dtype) -> None:
    """Values that every type can hold, as safetensors, as shards, and as GGUF."""
    model = tiny.oracle_model(tiny.random_shape(random.Random(5)), 5)
    tensors = {name: tensor.bfloat16().to(dtype) for name, tensor in tiny.weights_of(model).items()}
    whole = open_checkpoint(tiny.save_directory(tmp_path / "whole", model, tensors))
    shards = tiny.save_directory(tmp_path / "shards", model, {})
    (shards / "model.safetensors").unlink()
    for i, (name, tensor) in enumerate(tensors.items()):
        save_file({name: tensor}, shards / f"part{i:03}.safetensors")
    norms = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 1}
    # A GGUF has the norms with 1 added, which rounds.
    exact = tensors | {name: torch.zeros_like(norm) for name, norm in norms.items()}
    gguf = open_checkpoint(tiny.save_gguf(tmp_path / "model.gguf", model, exact))
    expected = packed_views(whole, "int8")
    assert packed_views(open_checkpoint(shards), "int8") == expected
    for name, view in packed_views(gguf, "int8").items():
        assert name.endswith("norm") or view == expected[name], name


def test_progress_and_memory_of_pages(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    layout, steps = PackedLayout.of(checkpoint.config, "int8"), list[tuple[int, int]]()
    pack(checkpoint, layout, lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1))


def test_progress_of_all_parts(folder: Path) -> None:
    """One bar to the end: both packings and the observing between them tell per cent of the same whole."""
    checkpoint, told = open_checkpoint(folder), list[tuple[int, int]]()
    pack_balanced(checkpoint, PackedLayout.of(checkpoint.config, "int8"), lambda *steps: told.append(steps))
    assert {total for _, total in told} == {100}
    shares = [done for done, _ in told]
    assert shares == sorted(shares)
    assert any(25 < share < 60 for share in shares), "observing is a third of the work"
    assert shares[-1] == 100


@pytest.mark.parametrize("num_threads", [1, 3])
def test_observing_adds_up_in_one_order(folder: Path, num_threads: int) -> None:
    """In float32 every order of a sum has bits of its own, and packed files are compared by their bytes."""
    checkpoint = open_checkpoint(folder)
    layout = PackedLayout.of(checkpoint.config, "int8")
    weights, size = PackedWeights("int8", layout.views(pack(checkpoint, layout))), checkpoint.config.vocab_size
    token_ids, told = [i * 7 % size for i in range(300)], list[int]()  # five pieces
    model = CpuModel(checkpoint.config, weights, num_threads=num_threads)
    found = model.observe_inputs(token_ids, lambda done, total: told.append(done))
    assert told == [64, 128, 192, 256, 300]
    # What enters the first matrix does not depend on other tokens: one by one, then added in order.
    name, alone = "layers.0.qkv", CpuModel(checkpoint.config, weights, num_threads=1)
    squares = [np.frombuffer(alone.observe_inputs([token_id])[name], np.float32) for token_id in token_ids]
    total = np.add.accumulate(squares)[-1]
    np.testing.assert_array_equal(np.frombuffer(found[name], np.float32), total / np.float32(len(token_ids)))
    assert found == CpuModel(checkpoint.config, weights, num_threads=2).observe_inputs(token_ids)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [EMBEDDING, "model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_values_that_are_not_finite(tmp_path: Path, name: str, value: float) -> None:
    model = tiny.oracle_model(tiny.random_shape(random.Random(5)), 5)
    tensors = tiny.weights_of(model)
    tensors[name].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        packed_views(open_checkpoint(tiny.save_directory(tmp_path / "model", model, tensors)), "int8")


def test_a_second_copy_of_the_head(tmp_path: Path) -> None:
    """The same: accepted. Another: refused."""
    model = tiny.oracle_model(tiny.random_shape(random.Random(5)), 5)
    tensors = tiny.weights_of(model)
    path = tiny.save_directory(tmp_path / "model", model, tensors | {HEAD: tensors[EMBEDDING].clone()})
    packed_views(open_checkpoint(path), "int8")
    other = tensors[EMBEDDING].clone()
    other[-1, -1] += 1
    tiny.save_directory(path, model, tensors | {HEAD: other})
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs"):
        packed_views(open_checkpoint(path), "int8")
