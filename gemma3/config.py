"""The shape of a Gemma 3 text model, and how a ``config.json`` or a plain dictionary is read into it.

Owns what may be built and what may not: an architecture this package does not implement, or a size no Gemma 3 has, is
refused here, before a byte of weights is read. Imports no torch.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from gemma3.errors import ConfigError

SLIDING = "sliding_attention"
FULL = "full_attention"
MAX_FLOAT = sys.float_info.max

MODEL_TYPE, MULTIMODAL_TYPE, ARCHITECTURE = "gemma3_text", "gemma3", "Gemma3ForCausalLM"
# Far above any Gemma 3 text model (27B: 62 layers, hidden 5,376), far below what would exhaust a machine.
BOUNDS = {
    "vocab_size": (1, 1_000_000),
    "hidden_size": (1, 32_768),
    "intermediate_size": (1, 131_072),
    "num_hidden_layers": (1, 256),
    "num_attention_heads": (1, 256),
    "num_key_value_heads": (1, 256),
    "head_dim": (2, 1_024),
    "context_length": (1, 1_048_576),
    "sliding_window": (1, 1_048_576),
}
# Beside the name of the field: what a config.json calls it, in its old spelling and in its new one.
_OTHER_NAMES = {
    "context_length": ("max_position_embeddings",),
    "rope_theta": (f"rope_parameters.{FULL}.rope_theta",),
    "rope_local_theta": ("rope_local_base_freq", f"rope_parameters.{SLIDING}.rope_theta"),
}
# A checkpoint that sets one of these to something else computes what this package does not.
_REQUIRED = {
    "attention_bias": (None, False),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "hidden_activation": (None, "gelu_pytorch_tanh"),
    "tie_word_embeddings": (None, True),
    "use_bidirectional_attention": (None, False),
}
# As tools write that the angles of RoPE are not scaled.
_NO_SCALING: tuple[object, ...] = (
    None,
    {},
    {"rope_type": "default"},
    {"type": "default"},
    {"rope_type": "default", "type": "default"},
)


@dataclass(frozen=True, kw_only=True)
class Gemma3TextConfig:
    """A Gemma 3 text model; the defaults are Gemma 3 270M (``google/gemma-3-270m``, config.json).

    ``context_length`` is ``max_position_embeddings`` of a ``config.json``; ``rope_local_theta`` is its
    ``rope_local_base_freq``. ``layer_types`` has one entry per layer; without any, every sixth layer is global.

    Raises:
        ConfigError: a value is of the wrong type, out of bounds, or does not fit another.
    """

    vocab_size: int = 262_144
    hidden_size: int = 640
    intermediate_size: int = 2_048
    num_hidden_layers: int = 18
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 256
    rms_norm_eps: float = 1e-6
    query_pre_attn_scalar: float = 256.0
    context_length: int = 32_768
    sliding_window: int = 512
    rope_theta: float = 1_000_000.0
    rope_local_theta: float = 10_000.0
    layer_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            _check_integer(name, getattr(self, name), low, high)
        for name in ("rms_norm_eps", "query_pre_attn_scalar", "rope_theta", "rope_local_theta"):
            _check_positive(name, getattr(self, name))
        if not self.layer_types:
            object.__setattr__(self, "layer_types", layer_types_from_pattern(self.num_hidden_layers, 6))
        self._check_fit()

    def _check_fit(self) -> None:
        if len(self.layer_types) != self.num_hidden_layers:
            raise ConfigError(
                f"layer_types has {len(self.layer_types)} entries, but num_hidden_layers is {self.num_hidden_layers}."
            )
        unknown = sorted(set(self.layer_types) - {SLIDING, FULL})
        if unknown:
            raise ConfigError(f"layer_types holds {unknown[0]!r:.60}; allowed are {SLIDING!r} and {FULL!r}.")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}."
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim={self.head_dim} is odd; RoPE rotates pairs.")

    def window(self, layer_idx: int) -> int | None:
        """How many keys a query of this layer sees, itself included; ``None`` means all."""
        return self.sliding_window if self.layer_types[layer_idx] == SLIDING else None

    @classmethod
    def from_hf_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a ``config.json`` in any of its spellings, or a plain dictionary with the names of this class.

        Without ``model_type`` a dictionary is taken for Gemma 3 text. Of the multimodal Gemma 3 the ``text_config`` is
        read. Other keys are ignored unless they would change what the model computes. A setting that is not given has
        the default of this class.

        Raises:
            ConfigError: not a Gemma 3 text model, one that computes something this package does not, or a setting that
                two of its names give different values.
        """
        raw = text_settings(raw)
        _check_architecture(raw)
        given = _in_our_words(raw)
        missing = [name for name in ("hidden_size", "num_hidden_layers") if name not in given]
        if missing:
            raise ConfigError(f"config.json has no {missing[0]!r}.")
        _check_integer("num_hidden_layers", given["num_hidden_layers"], *BOUNDS["num_hidden_layers"])
        return cls(**given | {"layer_types": _layer_types(raw, given["num_hidden_layers"])})


def layer_types_from_pattern(num_layers: int, pattern: int) -> tuple[str, ...]:
    """Every ``pattern``-th layer is global: 5 sliding, 1 full (Gemma 3 report, section 2.1)."""
    return tuple(SLIDING if (i + 1) % pattern else FULL for i in range(num_layers))


def text_settings(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a ``config.json`` says of the text model: the multimodal Gemma 3 has it in ``text_config``, others are it.

    Raises:
        ConfigError: the multimodal Gemma 3 without an object ``text_config``.
    """
    if raw.get("model_type") != MULTIMODAL_TYPE:
        return raw
    text_config = raw.get("text_config")
    if not isinstance(text_config, dict):
        raise ConfigError(
            f"model_type={MULTIMODAL_TYPE!r} is the multimodal Gemma 3, but text_config={text_config!r:.60} is no object; "
            f"only its text part, {MODEL_TYPE!r}, runs here."
        )
    return {name: raw[name] for name in _REQUIRED if name in raw} | text_config


def _check_architecture(raw: Mapping[str, Any]) -> None:
    _check_model_type(raw)
    for name, allowed in _REQUIRED.items():
        if raw.get(name) not in allowed:
            raise ConfigError(f"{name}={raw[name]!r:.60} is not implemented; allowed is {allowed[-1]!r}.")
    scaling = raw.get("rope_scaling")
    if scaling not in _NO_SCALING:
        raise ConfigError(f"rope_scaling={scaling!r:.60} is not implemented; allowed is None.")


def _check_model_type(raw: Mapping[str, Any]) -> None:
    model_type, architectures = raw.get("model_type"), raw.get("architectures")
    if model_type not in (None, MODEL_TYPE):
        raise ConfigError(f"model_type={model_type!r:.60} is not Gemma 3 text; 'gemma3_text' is needed.")
    if model_type is None and architectures not in (None, [ARCHITECTURE]):
        raise ConfigError(f"architectures={architectures!r:.60} is not Gemma 3 text; {ARCHITECTURE!r} is needed.")


def _in_our_words(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that ``raw`` gives, under the names of ``Gemma3TextConfig``."""
    values = dict(raw) | _flat_rope_parameters(raw.get("rope_parameters"))
    found: dict[str, Any] = {}
    for field in fields(Gemma3TextConfig):
        names = [name for name in (field.name, *_OTHER_NAMES.get(field.name, ())) if name in values]
        for name in names[1:]:
            if values[name] != values[names[0]]:
                one, other = (f"{each}={values[each]!r:.60}" for each in (names[0], name))
                raise ConfigError(f"{one} and {other} differ, but are two names of one setting.")
        if names:
            found[field.name] = values[names[0]]
    return found


def _flat_rope_parameters(parameters: object) -> dict[str, Any]:
    """The RoPE bases of the newest spelling, one object a layer type, under dotted names."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ConfigError(f"rope_parameters={parameters!r:.60} is not an object.")
    flat: dict[str, Any] = {}
    for layer_type in (FULL, SLIDING):
        name, entry = f"rope_parameters.{layer_type}", parameters.get(layer_type)
        if entry is not None and not isinstance(entry, dict):
            raise ConfigError(f"{name}={entry!r:.60} is not an object.")
        rope_type = (entry or {}).get("rope_type", "default")
        if rope_type != "default":
            raise ConfigError(f"{name}.rope_type={rope_type!r:.60} is not implemented; 'default' is.")
        flat |= {f"{name}.rope_theta": entry["rope_theta"]} if entry and "rope_theta" in entry else {}
    return flat


def _layer_types(raw: Mapping[str, Any], num_layers: int) -> tuple[str, ...]:
    listed = raw.get("layer_types")
    if listed is not None:
        if not isinstance(listed, list | tuple) or not all(isinstance(item, str) for item in listed):
            raise ConfigError(f"layer_types={listed!r:.60} is not a list of strings.")
        return tuple(listed)
    pattern = raw.get("sliding_window_pattern", raw.get("_sliding_window_pattern", 6))
    _check_integer("sliding_window_pattern", pattern, 1, 256)
    return layer_types_from_pattern(num_layers, pattern)


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r:.60} is not allowed: an integer from {low:,} to {high:,} is.")


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_FLOAT:
        raise ConfigError(f"{name}={value!r:.60} is not allowed: a number above 0 is.")
