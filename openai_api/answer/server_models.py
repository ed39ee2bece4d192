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
