"""``config.json`` of a folder: the model it describes, and what it says of how tensors are stored.

Owns what stands there beside the shape of the model (``gemma3.config``): quantisation, and a head
that is not tied. Nothing changes once it is read, so any thread may use it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gemma3.config import Gemma3TextConfig, text_settings
from gemma3.errors import CheckpointError, ConfigError
from gemma3.files.json_file import read_json_object

log = logging.getLogger("gemma3")

_TIED = "tie_word_embeddings"
# The key of current tools, of compressed-tensors before, of MLX.
_QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization")
# It quantises plain tensors while they are loaded, and trainers leave the key beside merged weights. What it stored itself
# is told from the names of its tensors.
_ON_LOAD = "bitsandbytes"
_METHODS = {"awq": "AWQ", "gptq": "GPTQ", "fp8": "FP8", "bitsandbytes": "bitsandbytes"}


@dataclass(frozen=True, slots=True)
class FolderConfig:
    """``raw`` is the file as it is; ``is_untied``: it says that the head is a matrix of its own."""

    raw: dict[str, Any]
    config: Gemma3TextConfig
    is_untied: bool

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read ``config.json``.

        Raises:
            CheckpointError: there is none.
            ConfigError: it is no JSON object, or not of a Gemma 3 text model in plain numbers.
        """
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder.name}/ has no config.json.")
        raw = read_json_object(folder / "config.json")
        _check_not_quantized(raw)
        settings = text_settings(raw)
        is_untied = settings.get(_TIED) is False
        # Tools write false beside equal tensors, too; whether they are is told from the tensors.
        config = Gemma3TextConfig.from_hf_dict({**settings, _TIED: True} if is_untied else settings)
        return cls(raw, config, is_untied)


def _check_not_quantized(raw: Mapping[str, Any]) -> None:
    for key in _QUANTIZATION_KEYS:
        value = raw.get(key)
        if value is None or value == {}:
            continue
        method = _method(value)
        if method == _ON_LOAD:
            log.warning("config.json: %s asks for %s, which is passed over: tensors are read as they are.", key, method)
            continue
        raise ConfigError(
            f"config.json: {key} says that the weights are quantised by {method}, which is not read: give the "
            f"unquantised model or a GGUF; where the weights are plain, take {key} out of config.json."
        )


def _method(value: object) -> str:
    """The quantisation's name as people know it."""
    found = value if isinstance(value, dict) else {}
    method = found.get("quant_method")
    if isinstance(method, str):
        return _METHODS.get(method.lower(), ascii(method)[1:-1][:60])
    if any(name.startswith(("load_in_", "bnb_")) for name in found):  # before transformers 4.37
        return "bitsandbytes"
    return "MLX" if "group_size" in found and "bits" in found else f"{value!r:.60}"
