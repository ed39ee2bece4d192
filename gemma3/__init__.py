"""Gemma 3 text models: configuration, weights, tokenizer, the reference model in plain torch, and a small generator.

Knows nothing of requests or HTTP. Names are imported on first use, so that what needs no torch does not load it
(importing torch takes over a second).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemma3.config import Gemma3TextConfig
    from gemma3.text.tokenizer import Gemma3Tokenizer
    from gemma3.torch_model.generate import Gemma3Generator
    from gemma3.torch_model.load import load_weights_into
    from gemma3.torch_model.model import Gemma3ForCausalLM

__version__ = "0.1.0"
__all__ = [
    "Gemma3ForCausalLM",
    "Gemma3Generator",
    "Gemma3TextConfig",
    "Gemma3Tokenizer",
    "__version__",
    "load_weights_into",
]

_HOMES = {
    "Gemma3ForCausalLM": "gemma3.torch_model.model",
    "Gemma3Generator": "gemma3.torch_model.generate",
    "Gemma3TextConfig": "gemma3.config",
    "Gemma3Tokenizer": "gemma3.text.tokenizer",
    "load_weights_into": "gemma3.torch_model.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gemma3' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
