"""A tiny folder that tests change, and how they look at it: the same tensors, or one line."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD
from gemma3.errors import CheckpointError, Gemma3Error
from gemma3.progress import no_progress
from gemma3.torch_model.load import load_model
from tests.gemma3 import tiny

MODEL = tiny.oracle_model(tiny.random_shape(random.Random(12)) | {"num_hidden_layers": 2}, 12)
WEIGHTS = tiny.weights_of(MODEL)
HEAD_COPY = {HEAD: WEIGHTS[EMBEDDING].clone()}
UP = "model.layers.1.mlp.up_proj.weight"
ADAPTER = {
    f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight": torch.zeros(2, 8) for part in ("A", "B")
}
Tensors = Mapping[str, Tensor]


def save(folder: Path, tensors: Tensors, name: str = "model.safetensors") -> Path:
    save_file(dict(tensors), folder / name)
    return folder


def edit_json(path: Path, **changes: object) -> None:
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | changes))


def assert_same_values(folder: Path) -> None:
    arrays = open_checkpoint(folder).load_arrays("float32", no_progress)
    assert set(arrays) - {HEAD} == set(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert np.array_equal(arrays[name], tensor.numpy()), name


def refusal(folder: Path, kind: type[Gemma3Error] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        load_model(open_checkpoint(folder), dtype="float32")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message
