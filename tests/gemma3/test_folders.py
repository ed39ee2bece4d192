"""Tensors as other tools name and store them: prefixes, buffers, heads, old indexes, types."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD
from gemma3.errors import ConfigError
from gemma3.progress import no_progress
from gemma3.torch_model.load import load_model
from tests.gemma3 import tiny
from tests.gemma3.folders import HEAD_COPY, MODEL, UP, WEIGHTS, assert_same_values, edit_json, refusal, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_directory(tmp_path / "model", MODEL)


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "none": lambda name: name.removeprefix("model."),
    "base_model.model.": lambda name: "base_model.model." + name,
    "language_model.": lambda name: "language_model." + name,
    "model.language_model.": lambda name: name.replace("model.", "model.language_model.", 1),
    "_orig_mod.": lambda name: "_orig_mod." + name,
    "module.": lambda name: "module." + name,
    "combined": lambda name: "module._orig_mod.base_model.model.language_model." + name,
    "each layer compiled": lambda name: name.replace(".mlp.", "._orig_mod.mlp."),
    "fsdp": lambda name: "_fsdp_wrapped_module." + name.replace("layers.1.", "layers.1._fsdp_wrapped_module."),
    "unknown, but the same everywhere": lambda name: "student.lm." + name,
}


@pytest.mark.parametrize("with_head", [False, True], ids=["tied", "head written, too"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_uniform_prefix(folder: Path, spelling: str, *, with_head: bool) -> None:
    tensors = {SPELLINGS[spelling](name): tensor for name, tensor in (WEIGHTS | HEAD_COPY).items()}
    if "language_model.embed" in "".join(tensors):  # a newer transformers has the head beside "model"
        tensors[HEAD] = tensors.pop(SPELLINGS[spelling](HEAD))
    if not with_head:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(HEAD)}
    assert_same_values(save(folder, tensors))


def test_a_prefix_that_one_tensor_lacks(folder: Path) -> None:
    tensors = {"base_model.model." + name: tensor for name, tensor in WEIGHTS.items() if name != UP}
    assert f"1 tensors are missing, the first is {UP}" in refusal(save(folder, tensors | {"x." + UP: WEIGHTS[UP]}))


def test_names_that_mean_one_tensor(folder: Path) -> None:
    twice = WEIGHTS | {UP.replace(".mlp.", "._orig_mod.mlp."): WEIGHTS[UP].clone()}
    message = refusal(save(folder, twice))
    assert f"are both {UP} of the model" in message
    both = {**WEIGHTS, **{"base_model.model." + name: tensor.clone() for name, tensor in WEIGHTS.items()}}
    assert "are not of this model, the first is 'base_model.model." in refusal(save(folder, both))


BUFFERS = (
    "model.rotary_emb.inv_freq",
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.embed_tokens.embed_scale",
)


@pytest.mark.parametrize("name", [*BUFFERS, "model.position_ids", "model.rotary_emb_local.original_inv_freq"])
def test_buffers_are_passed_over(folder: Path, name: str) -> None:
    """Whatever they hold: they are computed from config.json."""
    assert_same_values(save(folder, WEIGHTS | {name: torch.full((8,), 3, dtype=torch.int64)}))


def test_an_index_of_an_older_save(folder: Path) -> None:
    """As transformers has it: ``model.safetensors`` is the model, whatever else is there."""
    weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(WEIGHTS)}
    edit_json(folder / "model.safetensors.index.json", weight_map=weight_map)
    assert_same_values(folder)
    save(folder, {name: tensor + 1 for name, tensor in WEIGHTS.items()}, "model-00001-of-00002.safetensors")
    assert_same_values(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_norms_of_another_type(folder: Path, dtype: torch.dtype) -> None:
    exact = {name: tensor.bfloat16().half().to(tensor.dtype) for name, tensor in WEIGHTS.items()}
    stored = {name: tensor.to(dtype) if tensor.ndim == 1 else tensor for name, tensor in exact.items()}
    arrays = open_checkpoint(save(folder, stored)).load_arrays("float32", no_progress)
    assert all(
        np.array_equal(arrays[name], tensor.to(dtype).float().numpy())
        for name, tensor in exact.items()
        if tensor.ndim == 1
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_equal_head_beside_an_untied_flag(folder: Path, dtype: torch.dtype) -> None:
    edit_json(folder / "config.json", tie_word_embeddings=False)
    assert_same_values(save(folder, WEIGHTS | {HEAD: WEIGHTS[EMBEDDING].clone().to(dtype)}))
    load_model(open_checkpoint(folder), dtype="float32")


def test_an_untied_head(folder: Path) -> None:
    edit_json(folder / "config.json", tie_word_embeddings=False)
    assert "tie_word_embeddings=false, but there is no lm_head.weight" in refusal(folder)
    save(folder, WEIGHTS | {HEAD: WEIGHTS[EMBEDDING] * 1.5})
    assert "lm_head.weight differs from model.embed_tokens.weight" in refusal(folder)
    edit_json(folder / "config.json", tie_word_embeddings="no")
    assert "tie_word_embeddings='no'" in refusal(folder, ConfigError)


def test_of_tied_tensors_only_the_head_was_kept(folder: Path) -> None:
    """``safetensors.torch.save_model`` keeps the name that sorts first."""
    tensors = {name: tensor for name, tensor in (WEIGHTS | HEAD_COPY).items() if name != EMBEDDING}
    assert_same_values(save(folder, tensors))
    edit_json(folder / "config.json", tie_word_embeddings=False)
    assert f"missing, the first is {EMBEDDING}" in refusal(folder)


def test_an_added_token_without_a_row(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append(content["added_tokens"][0] | {"id": tiny.VOCAB, "content": "<MY_TOKEN>"})
    edit_json(folder / "tokenizer.json", **content)
    tokenizer = open_checkpoint(folder).load_tokenizer()
    assert max(tokenizer.encode("a <MY_TOKEN>", parse_special=True)) < tiny.VOCAB
    assert "without a row of the embedding" in caplog.text
