"""The bodies of ``/tokenize`` and ``/detokenize``.

Owns their names and types; what they ask for is in ``endpoints.tokenization``. Immutable; large bodies
are parsed in a worker thread.
"""

from openai_api.request.messages import Messages
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.schemas import TokenIds
from openai_api.request.strict_model import StrictModel


class TokenizeRequest(StrictModel):
    """Either ``prompt`` or ``messages``; the endpoint refuses both and neither."""

    neutral = IN_ANY_REQUEST

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    parse_special: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class DetokenizeRequest(StrictModel):
    """``tokens`` are token ids; those outside of the vocabulary are refused by the endpoint."""

    neutral = IN_ANY_REQUEST

    model: str | None = None
    tokens: TokenIds
