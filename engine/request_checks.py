"""What a request may not ask of an engine, checked at the door: one id outside the vocabulary would fail a whole step.

Owns the checks that need to know the model; ranges are ``sampling_params``'. Engine thread only.
"""

from collections import abc

from engine.errors import ContextLengthError, RequestError
from engine.sampling_params import SamplingParams


def check_token_ids(
    prompt: abc.Sequence[int], params: SamplingParams, *, prediction: abc.Sequence[int], vocab_size: int
) -> None:
    """Raises: RequestError, naming the first id outside the vocabulary and where it stands."""
    fields: dict[str, abc.Iterable[int]] = {
        "prompt": prompt,
        "prediction": prediction,
        "logit_bias": params.logit_bias,
        "stop_token_ids": params.stop_token_ids,
        "allowed_token_ids": params.allowed_token_ids,
        "logprob_token_ids": params.logprob_token_ids,
    }
    for name, token_ids in fields.items():
        for token_id in token_ids:
            if not 0 <= token_id < vocab_size:
                raise RequestError(
                    f"{name} holds the token id {token_id}; ids from 0 to {vocab_size - 1} are allowed.",
                    param=name,
                )


def check_choice(params: SamplingParams, end_token_ids: frozenset[int]) -> None:
    """Raises: RequestError if no token is left to choose before ``min_tokens``, when none may end the sequence."""
    if params.min_tokens and params.allowed_token_ids and end_token_ids.issuperset(params.allowed_token_ids):
        raise RequestError(
            f"All of allowed_token_ids end the answer, and min_tokens={params.min_tokens} forbids that.",
            param="allowed_token_ids",
        )


def check_length(num_prompt_tokens: int, params: SamplingParams, *, max_model_len: int) -> None:
    """Raises: RequestError or ContextLengthError, a prompt is empty or leaves no room for what is asked."""
    if num_prompt_tokens < 1:
        raise RequestError("The prompt is empty: it must have at least 1 token.", param="prompt")
    num_new = 0 if params.max_tokens == 0 else 1
    if num_prompt_tokens + num_new > max_model_len:
        raise ContextLengthError(max_model_len, num_prompt_tokens)
