"""The inference engine: tokens in, tokens out, on one thread. Knows nothing of HTTP, JSON or pydantic.

``from engine import LLMEngine, SamplingParams`` is all that offline use needs.
"""

from typing import TYPE_CHECKING

from engine.sampling_params import SamplingParams

if TYPE_CHECKING:
    from engine.llm_engine import GeneratedAnswer, LLMEngine

__all__ = ["GeneratedAnswer", "LLMEngine", "SamplingParams"]


def __getattr__(name: str) -> object:
    """Import the engine on first use: the HTTP layer wants only plain values from this package."""
    if name not in __all__:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from engine import llm_engine

    return getattr(llm_engine, name)
