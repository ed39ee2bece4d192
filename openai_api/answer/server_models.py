"""The bodies in which vLLM's clients ask for the server's version and tokenizer.

Owns names and types, vLLM's. Knows nothing of how an answer comes about. Runs on the event loop.
"""

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
