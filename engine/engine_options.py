"""What a person may choose when an engine is loaded, as one frozen object and as keywords.

Knows nothing of how a model is loaded. Immutable, so any thread may read it.
"""

from dataclasses import dataclass
from typing import TypedDict

MAX_NUM_WAITING = 2_048
MAX_WAITING_PROMPT_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What a person may choose. ``kv_cache_memory`` is in bytes; ``None`` everywhere means the default.

    Attributes:
        max_num_batched_tokens: of one step; also how long a decode waits behind a prefill.
        quantization: ``int8`` and ``int4`` are the native CPU core, ``none`` is torch in ``dtype``; see ``precision.py``.
        threads: of the model; by default one for each core.
        isa: the native core's kernels, for measurements; ``auto`` is the best that the processor has.
        max_num_waiting: sequences that may wait for a seat, of all callers; one caller alone may have half of them.
        max_waiting_prompt_tokens: of them all, under the same rule.
        chat_template: ``gemma``, ``transcript`` or a template's file; by default what the checkpoint says.
        generation_config: ``auto`` takes sampling defaults from the checkpoint's generation_config.json, ``none`` does not.
    """

    model: str | None = None
    served_model_name: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    kv_cache_memory: int = 1 << 30
    quantization: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    isa: str = "auto"
    chat_template: str | None = None
    generation_config: str = "auto"
    prefix_caching: bool = True
    max_num_waiting: int = MAX_NUM_WAITING
    max_waiting_prompt_tokens: int = MAX_WAITING_PROMPT_TOKENS


class EngineKeywords(TypedDict, total=False):
    """The fields of ``EngineOptions`` but the model, as keywords of ``LLMEngine``. A test holds the two equal."""

    served_model_name: str | None
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_memory: int
    quantization: str
    dtype: str
    device: str
    threads: int | None
    isa: str
    chat_template: str | None
    generation_config: str
    prefix_caching: bool
    max_num_waiting: int
    max_waiting_prompt_tokens: int
