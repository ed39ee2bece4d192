"""Checkpoints on disk: two formats give one model, and every kind of damage is named."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gemma3 import Gemma3ForCausalLM, Gemma3TextConfig, load_weights_into
from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.decoding import bfloat16_bits
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD
from gemma3.errors import CheckpointError, ConfigError, Gemma3Error, WeightsNotFoundError
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.load import load_model
from tests.gemma3 import tiny

ORACLE = tiny.oracle_model(
    tiny.random_shape(random.Random(11)) | {"num_hidden_layers": 7, "query_pre_attn_scalar": 16, "head_dim": 16}, 11
)
WEIGHTS = tiny.weights_of(ORACLE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_directory(tmp_path / "model", ORACLE)


def logits(path: Path, dtype: str = "float32") -> torch.Tensor:
    model = load_model(open_checkpoint(path), dtype=dtype)
    return model.compute_logits(model.step(torch.arange(6, 60), ContiguousKVCache(model.config)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gguf_and_safetensors_give_identical_logits(folder: Path, tmp_path: Path, dtype: str) -> None:
    """``1 + w`` of a GGUF is exact again after taking 1 off only where float32 can hold it; so the values are made so."""
    exact = {n: (t * 2**10).round() / 2**10 if t.ndim == 1 else t for n, t in WEIGHTS.items()}
    gguf_path = tiny.save_gguf(tmp_path / "model.gguf", ORACLE, exact)
    save_file(exact, folder / "model.safetensors")
    assert torch.equal(logits(folder, dtype), logits(gguf_path, dtype))


def test_sharded_equals_single(folder: Path, tmp_path: Path) -> None:
    expected = logits(folder)
    sharded = shutil.copytree(folder, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    names = sorted(WEIGHTS)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: WEIGHTS[name] for name in members}, sharded / shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(logits(sharded), expected)


def test_a_second_copy_of_the_head(folder: Path) -> None:
    expected = logits(folder)
    save_file(WEIGHTS | {HEAD: WEIGHTS[EMBEDDING].clone()}, folder / "model.safetensors")
    assert torch.equal(logits(folder), expected)
    save_file(WEIGHTS | {HEAD: WEIGHTS[EMBEDDING] + 1}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        logits(folder)


def test_load_weights_into_keeps_dtype(folder: Path) -> None:
    model = Gemma3ForCausalLM(tiny.config_of(ORACLE)).bfloat16()
    assert load_weights_into(model, repo_or_path=folder) is model
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match="has shape"):
        load_weights_into(
            Gemma3ForCausalLM(Gemma3TextConfig(hidden_size=8, num_hidden_layers=7, vocab_size=9)), repo_or_path=folder
        )


def test_float16_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="float16 overflows"):
        load_model(open_checkpoint(folder), dtype="float16")


def replace(name: str, tensor: torch.Tensor | None) -> Callable[[Path], object]:
    changed = {key: value for key, value in (WEIGHTS | {name: tensor}).items() if value is not None}
    return lambda folder: save_file(changed, folder / "model.safetensors")


def edit_config(**changes: object) -> Callable[[Path], object]:
    config = ORACLE.config.to_dict() | changes
    return lambda folder: (folder / "config.json").write_text(json.dumps(config))


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def write_index(content: bytes) -> Callable[[Path], object]:
    """An index, which is read where there is no ``model.safetensors``."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / INDEX).write_bytes(content)

    return damage


NORM = "model.layers.1.mlp.up_proj.weight"
NAN = WEIGHTS[NORM].clone()
NAN[0, 3] = float("nan")
INDEX = "model.safetensors.index.json"
BAD = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), WeightsNotFoundError, "no weights"),
    "no config": (lambda folder: (folder / "config.json").unlink(), CheckpointError, "no config.json"),
    "pickle only": (rename("model.safetensors", "pytorch_model.bin"), CheckpointError, "only pickles"),
    "pickle renamed": (write("model.safetensors", b"\x80\x02}q\x00."), CheckpointError, "a pickle"),
    "zip pickle renamed": (
        write("model.safetensors", b"PK\x03\x04" + b"\0" * 99),
        CheckpointError,
        "a pickle",
    ),
    "git lfs": (write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid"), CheckpointError, "LFS"),
    "empty": (write("model.safetensors", b""), CheckpointError, "damaged"),
    "huge header": (write("model.safetensors", b"\xff" * 8 + b"{}"), CheckpointError, "damaged"),
    "missing": (replace(NORM, None), CheckpointError, f"1 tensors are missing, the first is {NORM}"),
    "extra": (replace("model.vision.weight", NAN), CheckpointError, "the first is 'model.vision.weight'"),
    "hostile name": (replace("a\nb" * 99, NAN), CheckpointError, "not of this model"),
    "shape": (replace(NORM, WEIGHTS[NORM].T.contiguous()), CheckpointError, f"{NORM} has shape"),
    "dtype": (replace(NORM, WEIGHTS[NORM].to(torch.int32)), CheckpointError, "is I32; allowed are BF16, F16, F32, F64"),
    "nan": (replace(NORM, NAN), CheckpointError, "NaN"),
    "llama": (edit_config(model_type="llama"), ConfigError, "'llama' is not Gemma 3 text"),
    "gemma 2": (edit_config(model_type="gemma2", final_logit_softcapping=30.0), ConfigError, "'gemma2'"),
    "10**9 layers": (
        edit_config(num_hidden_layers=10**9, layer_types=None),
        ConfigError,
        "num_hidden_layers=1000000000",
    ),
    "config not json": (write("config.json", b"{"), ConfigError, "not valid JSON"),
    "config deep": (write("config.json", b"[" * 100_000), ConfigError, "not valid JSON"),
    "config list": (write("config.json", b"[]"), ConfigError, "not a JSON object"),
    "index empty": (write_index(b"{}"), CheckpointError, "no 'weight_map'"),
    "index of nothing": (write_index(b'{"weight_map": {}}'), CheckpointError, "no 'weight_map'"),
    "index of numbers": (write_index(b'{"weight_map": {"a": 1}}'), CheckpointError, "no 'weight_map'"),
    "index null": (write_index(b"null"), ConfigError, "not a JSON object"),
    "index elsewhere": (
        write_index(b'{"weight_map": {"a": "../x.safetensors"}}'),
        CheckpointError,
        "not a .safetensors file beside",
    ),
    "index missing": (write_index(b'{"weight_map": {"a": "x.safetensors"}}'), CheckpointError, "which is not there"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_directory(folder: Path, kind: str) -> None:
    damage, error, words = BAD[kind]
    damage(folder)
    with pytest.raises(error) as caught:
        logits(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_tensor_in_two_shards(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "again.safetensors")
    (folder / "model.safetensors").rename(folder / "once.safetensors")
    with pytest.raises(CheckpointError, match=r"both in .* and in"):
        logits(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_truncated_anywhere(folder: Path, tmp_path: Path, name: str) -> None:
    path = folder / name if name.endswith("rs") else tiny.save_gguf(tmp_path / name, ORACLE)
    target = folder if name.endswith("rs") else path
    whole, rng = path.read_bytes(), random.Random(1)
    for _ in range(200):
        path.write_bytes(whole[: rng.randrange(len(whole))])
        with pytest.raises(Gemma3Error) as caught:
            open_checkpoint(target)
        assert "\n" not in str(caught.value)


GGUF_BAD = {
    "missing": (lambda t: t.pop(NORM), "missing, the first is " + NORM),
    "extra": (lambda t: t.update({"model.layers.99.mlp.up_proj.weight": t[NORM]}), "not of this model"),
    "shape": (lambda t: t.update({NORM: t[NORM][:-1].contiguous()}), "has shape"),
    "nan": (lambda t: t.update({NORM: NAN}), "NaN"),
}


@pytest.mark.parametrize("kind", GGUF_BAD)
def test_bad_gguf(tmp_path: Path, kind: str) -> None:
    damage, words = GGUF_BAD[kind]
    tensors = dict(WEIGHTS)
    damage(tensors)
    path = tiny.save_gguf(tmp_path / "model.gguf", ORACLE, tensors)
    with pytest.raises(CheckpointError) as caught:
        logits(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors", ".txt"])
def test_other_files_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"abc")
    with pytest.raises(CheckpointError, match=path.name):
        open_checkpoint(path)


def test_bfloat16_bits_round_as_torch_does() -> None:
    """All exponents, ties among them, both signs, the largest value that stays finite."""
    bits = np.random.default_rng(0).integers(0, 2**32, 400_000, dtype=np.uint32)
    bits[:100_000] = (bits[:100_000] & 0xFFFF0000) | 0x8000  # exactly between two neighbours
    values = bits.view(np.float32)
    values = np.append(values[np.isfinite(values)], np.float32([0.0, -0.0, 1e-45, 3.38e38]))
    expected = torch.tensor(values).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(bfloat16_bits(values.copy()), expected)
