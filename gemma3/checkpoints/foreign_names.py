"""Tensor names as other tools write them, in the model's words; marks of what is no plain model.

Tools put a prefix before every name, leave buffers that are computed anyway, or store adapters and
quantised values that this package does not read. Owns these names. Knows nothing of files, shapes
or values. Plain functions, any thread.
"""

from collections.abc import Iterable, Mapping

from gemma3.checkpoints.tensor_names import FINAL_NORM, HEAD

# Put between the parts of a name by torch.compile, DataParallel, FSDP and activation checkpointing.
_WRAPPERS = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
# Computed from config.json, so what a file holds is not read (transformers passes over them, too).
_BUFFERS = frozenset(("inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "embed_scale", "position_ids"))
_ADAPTER_PARTS = ("lora_", "base_layer", "ia3_l", "vera_lambda", "modules_to_save")
_VISION_PARTS = frozenset(("vision_tower", "vision_model", "multi_modal_projector", "embed_vision"))
# The last part of a tensor's name, and whose it is.
_QUANTIZED: Mapping[str, str] = {
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "g_idx": "GPTQ",
    "absmax": "bitsandbytes",
    "bitsandbytes__nf4": "bitsandbytes",
    "bitsandbytes__fp4": "bitsandbytes",
    "SCB": "bitsandbytes",
    "weight_packed": "compressed-tensors",
    "weight_scale": "compressed-tensors",
    "weight_scale_inv": "FP8",
    "biases": "MLX",
}
_MODEL = "model."
_ANCHOR = FINAL_NORM.removeprefix(_MODEL)  # the one tensor that no file is without and no layer has


def names_in_model(found: Iterable[str]) -> dict[str, str]:
    """The name in the model of each tensor, by the name in the file; buffers are left out.

    What stands before the final ``norm.weight`` is the prefix of all names, ``model.`` in the model:
    ``base_model.model.model.``, ``language_model.model.``, ``model.language_model.``, none. A name
    without that prefix stays as it is.
    """
    plain = {name: _without_wrappers(name) for name in found if name.rpartition(".")[2] not in _BUFFERS}
    prefixes = [name.removesuffix(_ANCHOR) for name in plain.values() if f".{name}".endswith(f".{_ANCHOR}")]
    if len(prefixes) != 1:  # there are two, or none: the check of names says so in its words
        return plain
    return {name: _in_model(inner, prefixes[0]) for name, inner in plain.items()}


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _in_model(name: str, prefix: str) -> str:
    """The head stands beside the model, so it has only the beginning of the prefix."""
    before, is_head, after = name.rpartition(HEAD)
    if is_head and not after and prefix.startswith(before):
        return HEAD
    return _MODEL + name.removeprefix(prefix) if name.startswith(prefix) else name


def is_adapter(names: Iterable[str]) -> bool:
    """Whether a file holds an adapter, alone or beside the weights it was not merged into."""
    return any(part.startswith(_ADAPTER_PARTS) for name in names for part in name.split("."))


def is_vision(name: str) -> bool:
    """Whether a tensor is of the part of the multimodal Gemma 3 that sees."""
    return not _VISION_PARTS.isdisjoint(name.split("."))


def quantization_of(names: Iterable[str]) -> str | None:
    """The name of the quantisation that these tensors are stored in, if it is known here."""
    return next((kind for name in names if (kind := _QUANTIZED.get(name.rpartition(".")[2]))), None)
