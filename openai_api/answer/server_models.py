"""The bodies of answers about the server: its model, its tokenizer, its state and what it can do.

Owns names and types: OpenAI's, vLLM's and our own. Knows nothing of how an answer comes about. Runs
on the event loop.
"""

from typing import Literal

from openai_api.answer.models import Answer


class VersionAnswer(Answer):
    """The version of this program."""

    version: str


class TokenizerInfoAnswer(Answer):
    """What a ``tokenizer_config.json`` says; ``model_max_length`` is in tokens.

    ``chat_template`` is ``null`` for a model without one.
    """

    tokenizer_class: str
    bos_token: str
    eos_token: str
    pad_token: str
    unk_token: str
    add_bos_token: bool
    add_eos_token: bool
    model_max_length: int
    chat_template: str | None


class ModelCard(Answer):
    """OpenAI's four members, then ours: ``created`` is in unix seconds, ``max_model_len`` in
    tokens.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    quantization: str
    dtype: str
    is_instruction_tuned: bool


class ModelList(Answer):
    """The one model this server has, once under each of its names."""

    object: Literal["list"]
    data: list[ModelCard]


class TokenizeAnswer(Answer):
    """``count`` and ``max_model_len`` are in tokens; ``token_strs`` is ``null`` unless asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeAnswer(Answer):
    """The text of the tokens, with a replacement character for bytes that are no UTF-8."""

    prompt: str


class StatusAnswer(Answer):
    """The engine's status: ``loading``, ``ready``, ``draining`` or ``dead``."""

    status: str


class CapabilitiesAnswer(Answer):
    """Endpoint -> ``exact``, ``no_effect`` or ``refused`` -> field -> note; and by name, the values
    that ask for nothing.
    """

    object: Literal["capabilities"]
    endpoints: dict[str, dict[str, dict[str, str]]]
    neutral_values: dict[str, str]


class ServedModelAnswer(Answer):
    """``step_bytes`` are read of the weights in each step, ``null`` where that is not known, as the
    instruction set and the threads on torch.
    """

    names: list[str]
    quantization: str
    dtype: str
    device: str
    instruction_set: str | None
    threads: int | None
    step_bytes: int | None
    max_model_len: int
    is_instruction_tuned: bool
    system_fingerprint: str


class MachineAnswer(Answer):
    """``processors`` are logical ones that this process may use, ``memory_bytes`` what it may have."""

    processor: str
    architecture: str
    processors: int
    memory_bytes: int | None


class BlockPoolAnswer(Answer):
    """The blocks of one kind of layers."""

    used_blocks: int
    blocks: int
    block_bytes: int


class KVCacheAnswer(Answer):
    """``usage``, from 0 to 1, is that of the fuller pool; a block is of ``block_tokens`` tokens."""

    usage: float
    block_tokens: int
    global_layers: BlockPoolAnswer
    sliding_layers: BlockPoolAnswer


class ServerTotals(Answer):
    """They only grow, while the program runs; all are tokens but for ``steps`` and ``preemptions``.

    ``computed_tokens``: of prompts, outputs and guesses. ``prefix_cache_hits`` are those of
    ``prefix_cache_queries`` that were found.
    """

    steps: int
    computed_tokens: int
    output_tokens: int
    prefix_cache_queries: int
    prefix_cache_hits: int
    draft_tokens: int
    accepted_draft_tokens: int
    preemptions: int


class LatencyAnswer(Answer):
    """Of all that was measured so far: the mean between two looks is a quotient of differences."""

    count: int
    sum_s: float


class BatchTotals(Answer):
    """Everybody's: batches whose rows are computed now, and all rows that were, with or without an answer."""

    in_progress: int
    rows: int


class RunningRequest(Answer):
    """What a request does now. ``id`` is the beginning of the answer's; all counts are tokens.

    ``phase``: ``waiting`` (also for memory), ``prefill`` or ``decode``. ``computed_tokens`` are
    those of prompt and output in the KV cache, of the choice that is furthest; ``output_tokens``
    those of all ``choices``, of which ``forced_tokens`` were left no choice by a constraint and
    ``accepted_draft_tokens`` were guessed. ``is_scoring``: it generates nothing.
    """

    id: str
    phase: Literal["waiting", "prefill", "decode"]
    age_s: float
    choices: int
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    output_tokens: int
    max_output_tokens: int
    forced_tokens: int
    accepted_draft_tokens: int
    is_constrained: bool
    is_scoring: bool


class ServerAnswer(Answer):
    """The server at a glance; ``model`` and ``kv_cache`` are ``null`` while it loads, ``batches`` where
    no files are kept.

    ``running`` and ``waiting`` count choices, as in ``/metrics``; ``requests`` has the caller's
    own, oldest first, and ``other_requests`` counts the rest.
    """

    object: Literal["server"]
    status: str
    version: str
    uptime_s: float
    model: ServedModelAnswer | None
    machine: MachineAnswer
    kv_cache: KVCacheAnswer | None
    running: int
    waiting: int
    totals: ServerTotals
    time_to_first_token: LatencyAnswer
    inter_token_latency: LatencyAnswer
    batches: BatchTotals | None
    requests: list[RunningRequest]
    other_requests: int
