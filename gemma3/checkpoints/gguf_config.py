"""The metadata of a GGUF file in the words of ``config.json``, whichever tool wrote it.

Owns the names of the keys, what a missing one means, and which would change what the model
computes. Knows no values of tensors, only their shapes. Plain functions, any thread.

Sources: llama.cpp (``llama-arch.cpp``, ``llama-model.cpp``: LLM_ARCH_GEMMA3) and Ollama
(``convert/convert_gemma3.go``, whose older versions wrote neither ``layer_norm_rms_epsilon`` nor
``rope.freq_base``; ``model/models/gemma3`` has the defaults).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gemma3.config import BOUNDS, FULL, SLIDING, Gemma3TextConfig, layer_types_from_pattern
from gemma3.errors import CheckpointError, ConfigError
from gemma3.files.gguf import GGUFFile, GGUFNumbers
from gemma3.files.gguf_header import shown

Shapes = Mapping[str, tuple[int, ...]]

# What computes the same as no value, for metadata that would change what the model computes.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "gemma3.attn_logit_softcapping": (0.0,),
    "gemma3.final_logit_softcapping": (0.0,),
    "gemma3.rope.scaling.factor": (0.0, 1.0),
    "gemma3.attention.causal": (True,),
}
_MODELS = {
    "gemma": "Gemma 1",
    "gemma2": "Gemma 2",
    "gemma3n": "Gemma 3n",
    "gemma4": "Gemma 4",
    "gemma-embedding": "EmbeddingGemma",
    "clip": "the image part of a multimodal model (mmproj)",
}
_SIZE_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "context_length": "context_length",
    "sliding_window": "attention.sliding_window",
}
_MAX_PERIOD = 256
# Each setting under all its names, llama.cpp's first.
_FLOAT_KEYS = {
    "rms_norm_eps": ("attention.layer_norm_rms_epsilon",),
    "rope_theta": ("rope.freq_base", "rope.global.freq_base"),
    "rope_local_theta": ("rope.freq_base_swa", "rope.local.freq_base"),
}


def config_of_gguf(file: GGUFFile, shapes: Shapes) -> Gemma3TextConfig:
    """The model that the metadata describes; ``shapes`` are those of the tensors, by the names of
    the file.

    A size that is not given is told from the tensors; what they do not tell is as in Gemma 3 270M.

    Raises:
        ConfigError: not Gemma 3 text, one that computes something this package does not, or an absurd value.
        CheckpointError: the embedding is missing.
    """
    _check_architecture(file)
    for key, neutral in _NEUTRAL.items():
        if file.metadata.get(key) not in (None, *neutral):
            raise ConfigError(f"{file.name}: {key}={shown(file.metadata[key])} is not implemented.")
    if "token_embd.weight" not in shapes:
        raise CheckpointError(f"{file.name}: token_embd.weight is missing.")
    sizes = _sizes(file, shapes)
    floats: dict[str, Any] = _floats(file)
    return Gemma3TextConfig(
        **sizes,
        **floats,
        vocab_size=shapes["token_embd.weight"][0],
        # llama.cpp scales Gemma 3's queries by 1 / sqrt(head size) in every size but 27B
        # (llama-model.cpp).
        query_pre_attn_scalar=float(sizes["head_dim"]),
        layer_types=_layer_types(file, sizes["num_hidden_layers"]),
    )


def _check_architecture(file: GGUFFile) -> None:
    kind, architecture = file.metadata.get("general.type"), file.metadata.get("general.architecture")
    if kind not in (None, "model"):
        raise ConfigError(f"{file.name}: general.type={shown(kind)} is no model; 'model' is needed.")
    if architecture != "gemma3":
        known = _MODELS.get(str(architecture))
        what = f"{shown(architecture)}, {known}" if known else shown(architecture)
        raise ConfigError(f"{file.name}: general.architecture is {what}, not Gemma 3 text; 'gemma3' is needed.")


def _sizes(file: GGUFFile, shapes: Shapes) -> dict[str, int]:
    told = _sizes_of_tensors(shapes)
    sizes: dict[str, int] = {}
    for name, key in _SIZE_KEYS.items():
        low, high = BOUNDS[name]
        default = told.get(name, getattr(Gemma3TextConfig, name))
        sizes[name] = _size(file, f"gemma3.{key}", low, high, default=default)
    return sizes


def _size(file: GGUFFile, key: str, low: int, high: int, *, default: int) -> int:
    """A number, or one for each layer, all the same."""
    value = file.metadata.get(key)
    if isinstance(value, GGUFNumbers):
        numbers: list[Any] = value.tolist()
        if len(set(numbers)) == 1 and type(numbers[0]) is int and low <= numbers[0] <= high:
            return numbers[0]
        raise ConfigError(
            f"{file.name}: {key} is {numbers!r:.60}; one number for all layers, in [{low}, {high}], is needed."
        )
    return file.get_int(key, minimum=low, maximum=high, default=default)


def _sizes_of_tensors(shapes: Shapes) -> dict[str, int]:
    """What the shapes say, where the tensors that say it are there."""
    layers = [int(part) for name in shapes if name.startswith("blk.") and (part := name.split(".")[1]).isdecimal()]
    sizes = {"num_hidden_layers": max(layers, default=0) + 1, "hidden_size": shapes["token_embd.weight"][-1]}
    head_dim = shapes.get("blk.0.attn_q_norm.weight", (Gemma3TextConfig.head_dim,))[0]
    rows = {
        "head_dim": ("attn_q_norm", 1),
        "intermediate_size": ("ffn_gate", 1),
        "num_attention_heads": ("attn_q", head_dim),
        "num_key_value_heads": ("attn_k", head_dim),
    }
    for size, (inner, divisor) in rows.items():
        shape = shapes.get(f"blk.0.{inner}.weight")
        sizes |= {size: shape[0] // divisor} if shape else {}
    return sizes


def _floats(file: GGUFFile) -> dict[str, float]:
    """The settings that the file gives, each under any of its names."""
    found: dict[str, float] = {}
    for name, keys in _FLOAT_KEYS.items():
        given = [key for key in (f"gemma3.{key}" for key in keys) if key in file.metadata]
        values = [_float(file, key) for key in given]
        if len(set(values)) > 1:
            raise ConfigError(
                f"{file.name}: {given[0]}={values[0]} and {given[1]}={values[1]} differ, but are one setting."
            )
        found |= {name: values[0]} if values else {}
    return found


def _float(file: GGUFFile, key: str) -> float:
    return float(file.get(key, int)) if type(file.metadata[key]) is int else file.get_float(key)


def _layer_types(file: GGUFFile, num_layers: int) -> tuple[str, ...]:
    """Every sixth layer is global, unless a period, or a bool for each layer (true: it slides),
    says otherwise."""
    key = "gemma3.attention.sliding_window_pattern"
    value = file.metadata.get(key)
    if not isinstance(value, GGUFNumbers):
        return layer_types_from_pattern(num_layers, file.get_int(key, minimum=1, maximum=_MAX_PERIOD, default=6))
    slides: Sequence[Any] = value.tolist()
    if len(slides) != num_layers or not all(isinstance(slide, bool) for slide in slides):
        raise ConfigError(
            f"{file.name}: {key} has {len(slides)} values, must have a bool for each of {num_layers} layers."
        )
    return tuple(SLIDING if slide else FULL for slide in slides)
