"""Log probabilities of a prompt in vLLM's shape: for each token an object by token id, ``null`` for
the first.

Owns that shape and nothing else. Any thread: an answer with many of them is written in a worker
thread.
"""

from typing_extensions import TypedDict  # pydantic takes the standard library's from Python 3.12 on

from engine.outputs import TokenLogprob
from openai_api.answer.chunks import Chunk
from openai_api.engine_api import Tokenizer


class PromptLogprob(TypedDict):
    """``rank`` is 1 for the likeliest token of the vocabulary; ``decoded_token`` is its text."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]


def prompt_logprobs_answer(chunk: Chunk, tokenizer: Tokenizer) -> PromptLogprobs:
    """One entry for each token of the prompt: its own log probability, then its alternatives'."""
    return [None if entry is None else _entry(entry, tokenizer) for entry in chunk.prompt_logprobs or ()]


def _entry(entry: TokenLogprob, tokenizer: Tokenizer) -> dict[str, PromptLogprob]:
    own = _token(entry.token_id, entry.logprob, entry.rank, tokenizer)
    others = {
        str(token_id): _token(token_id, logprob, rank, tokenizer)
        for rank, (token_id, logprob) in enumerate(entry.top, start=1)
    }
    return {str(entry.token_id): own, **others}


def _token(token_id: int, logprob: float, rank: int, tokenizer: Tokenizer) -> PromptLogprob:
    text = tokenizer.token_to_bytes(token_id).decode("utf-8", "replace")
    return {"logprob": logprob, "rank": rank, "decoded_token": text}
