"""The inference engine: tokens in, tokens out, on one thread. Knows nothing of HTTP, JSON or pydantic.

``from engine import LLMEngine, SamplingParams`` is all that offline use needs.
"""

from engine.llm_engine import GeneratedAnswer, LLMEngine
from engine.sampling_params import SamplingParams

__all__ = ["GeneratedAnswer", "LLMEngine", "SamplingParams"]
