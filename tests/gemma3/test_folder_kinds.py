"""Folders that trainers, peft and quantisers leave: served, or refused by the name of what they are."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.errors import ConfigError, WeightsNotFoundError
from tests.gemma3 import tiny
from tests.gemma3.folders import ADAPTER, MODEL, UP, WEIGHTS, assert_same_values, edit_json, refusal, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_directory(tmp_path / "model", MODEL)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "lora.safetensors"])
def test_an_adapter_beside_the_model(folder: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    save(folder, ADAPTER, name)
    if name != "adapter_model.safetensors":
        (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert_same_values(folder)
    assert [record.getMessage() for record in caplog.records] == [
        f"model/ holds an adapter, too ({name}): it is not applied, the model is served as it is."
    ]


def test_an_adapter_s_config_beside_the_model(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_json(folder / "adapter_config.json", base_model_name_or_path="owner/base")
    assert_same_values(folder)
    assert "(adapter_config.json)" in caplog.text


ADAPTER_CONFIGS: Mapping[str, object] = {
    '{"base_model_name_or_path": "owner/base"}': " of owner/base",
    '{"base_model_name_or_path": "a\\nb"}': r" of a\nb",
    '{"base_model_name_or_path": null}': "",
    '{"base_model_name_or_path": [1]}': "",
    "[]": "",
    "{": "",
}


@pytest.mark.parametrize("content", ADAPTER_CONFIGS)
@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin", "model.safetensors", None])
def test_an_adapter_alone(folder: Path, weights: str | None, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text(content)
    if weights is not None:
        save(folder, ADAPTER, weights)
    message = refusal(folder)
    assert message.startswith(f"model/ holds an adapter{ADAPTER_CONFIGS[content]} and not the model: merge it")
    (folder / "config.json").unlink()
    assert refusal(folder) == message


def test_an_adapter_beside_a_gguf(folder: Path) -> None:
    """The adapter is no model, so the folder holds one."""
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    path = tiny.save_gguf(folder / "model.gguf", MODEL)
    assert open_checkpoint(folder).weight_files == [path]


def test_an_adapter_that_was_not_merged(folder: Path) -> None:
    named = {"base_model.model." + name: tensor for name, tensor in WEIGHTS.items()}
    assert "holds an adapter and not the model: merge it" in refusal(save(folder, named | ADAPTER))


def test_a_trainer_s_folder_names_the_newest_checkpoint(folder: Path) -> None:
    output = folder.parent / "output"
    for step in ("checkpoint-9", "checkpoint-30", "checkpoint-200"):
        shutil.copytree(folder, output / step)
    (output / "checkpoint-200" / "model.safetensors").unlink()
    (output / "checkpoint-last").mkdir()
    (output / "runs").mkdir()
    message = refusal(output, WeightsNotFoundError)
    assert message == f"output/ holds no weights itself; {output / 'checkpoint-30'} (the newest) does: give that path."
    assert_same_values(output / "checkpoint-30")


def test_a_folder_of_folders_names_one(folder: Path) -> None:
    assert refusal(folder.parent, WeightsNotFoundError).endswith(f"{folder} does: give that path.")
    cache = folder.parent / "models--owner--name"
    shutil.copytree(folder, cache / "snapshots" / "0123abcd")
    assert f"{cache / 'snapshots' / '0123abcd'} does" in refusal(cache, WeightsNotFoundError)


QUANTIZED: Mapping[str, dict[str, Any]] = {
    "AWQ": {"quantization_config": {"quant_method": "awq", "bits": 4}},
    "GPTQ": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "compressed-tensors": {"quantization_config": {"quant_method": "compressed-tensors"}},
    "by compressed-tensors": {"compression_config": {"quant_method": "compressed-tensors"}},
    "FP8": {"quantization_config": {"quant_method": "fp8"}},
    "hqq": {"quantization_config": {"quant_method": "hqq"}},
    "MLX": {"quantization": {"group_size": 64, "bits": 4}},
    "'int8'": {"quantization_config": "int8"},
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantised_config_is_refused_by_name(folder: Path, kind: str) -> None:
    edit_json(folder / "config.json", **QUANTIZED[kind])
    message = refusal(folder, ConfigError)
    assert f"{kind.removeprefix('by ')}, which is not read" in message
    assert f"take {next(iter(QUANTIZED[kind]))} out of config.json" in message


@pytest.mark.parametrize(
    "harmless", [None, {}, {"quant_method": "bitsandbytes", "load_in_4bit": True}, {"load_in_8bit": True}], ids=str
)
def test_a_config_of_plain_tensors(folder: Path, harmless: object, caplog: pytest.LogCaptureFixture) -> None:
    edit_json(folder / "config.json", quantization_config=harmless)
    assert_same_values(folder)
    assert ("bitsandbytes" in caplog.text) == bool(harmless)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("qweight", "GPTQ or AWQ"),
        ("weight.absmax", "bitsandbytes"),
        ("weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("SCB", "bitsandbytes"),
        ("weight_packed", "compressed-tensors"),
        ("weight_scale", "compressed-tensors"),
        ("biases", "MLX"),
    ],
)
def test_quantised_tensors_are_refused_by_name(folder: Path, ending: str, kind: str) -> None:
    tensors = WEIGHTS | {UP.removesuffix("weight") + ending: torch.zeros(4, dtype=torch.int32)}
    assert f"quantised by {kind}, which is not read" in refusal(save(folder, tensors))


def multimodal(folder: Path, **top: object) -> Path:
    text_config = json.loads((folder / "config.json").read_text())
    config = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config | {"text_config": text_config} | top))
    return folder


def test_the_text_part_of_a_multimodal_folder(folder: Path) -> None:
    save(multimodal(folder), {"language_model." + name: tensor for name, tensor in WEIGHTS.items()})
    assert_same_values(folder)
    assert open_checkpoint(folder).config == tiny.config_of(MODEL)


def test_what_makes_it_no_text_model(folder: Path) -> None:
    vision = {"model.vision_tower.vision_model.head.weight": torch.zeros(4, 4)}
    whole = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in WEIGHTS.items()}
    assert "1 tensors are of the multimodal Gemma 3" in refusal(save(multimodal(folder), whole | vision))
    edit_json(folder / "config.json", text_config=None)
    assert "multimodal" in refusal(folder, ConfigError)
    edit_json(folder / "config.json", text_config={"model_type": "llama"})
    assert "'llama'" in refusal(folder, ConfigError)


def test_values_that_no_float32_holds(folder: Path) -> None:
    save(folder, WEIGHTS | {UP: WEIGHTS[UP].double() * 1e300})
    assert "NaN or infinite" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_odd_json_is_one_line(folder: Path, name: str) -> None:
    before = (folder / name).read_bytes() if (folder / name).is_file() else b"{}"
    (folder / name).write_bytes(b"\xef\xbb\xbf" + before)
    assert_same_values(folder)  # a byte order mark does no harm
    for content, words in (
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff\xfe\xfd", "is not valid JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"null", "is not a JSON object"),
        (b'["a"]', "is not a JSON object"),
        (b"7", "is not a JSON object"),
        (b" " * (16 << 20) + b"{}", "has more than 16,777,216 bytes"),
    ):
        (folder / name).write_bytes(content)
        message = refusal(folder, ConfigError)
        assert name in message
        assert words in message


ODD: tuple[object, ...] = ([1], {"a": 1}, "x", True, 10**400, -1)
FIELDS = (
    "hidden_size",
    "vocab_size",
    "rms_norm_eps",
    "model_type",
    "layer_types",
    "rope_theta",
    "rope_local_base_freq",
)


@pytest.mark.parametrize("value", ODD, ids=lambda value: f"{value!r:.20}")
@pytest.mark.parametrize("field", FIELDS)
def test_odd_values_of_a_config_are_one_line(folder: Path, field: str, value: object) -> None:
    edit_json(folder / "config.json", rope_parameters=None, **{field: value})
    assert field.replace("base_freq", "theta") in refusal(folder, ConfigError).replace("base_freq", "theta")
