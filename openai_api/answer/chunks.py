"""What one choice of an answer gains at once, on its way from the engine to the writers.

Owns the joining of such gains and their size; knows neither requests nor JSON. Plain values: any
thread may read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.outputs import FinishReason, TokenLogprob


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one choice gained at once.

    ``choice`` counts through all prompts. ``logprobs`` is as long as ``token_ids`` if it is there;
    the first token of a prompt has none. ``prompt_logprobs`` come with the first chunk of a choice.
    ``stop_reason`` is the stop string or stop token id that ended it, with ``finish_reason``.
    ``forced`` is as in ``SequenceDelta``: nothing of an echo is in it.
    """

    choice: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob | None, ...] | None = None
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    stop_reason: str | int | None = None
    forced: bytes = b""


def forced_flags(chunk: Chunk, *, num_tokens: int) -> list[bool]:
    """Of ``num_tokens`` generated tokens, whether each was forced; without a grammar none was."""
    return list(map(bool, chunk.forced)) or [False] * num_tokens


def num_values(chunks: Sequence[Chunk]) -> int:
    """How much there is to write of ``chunks``, 1 to 2 microseconds for each: tokens and log
    probabilities.
    """
    lists = (entries for chunk in chunks for entries in (chunk.logprobs, chunk.prompt_logprobs) if entries is not None)
    entries = (entry for each in lists for entry in each if entry is not None)
    return sum(len(chunk.token_ids) for chunk in chunks) + sum(1 + len(entry.top) for entry in entries)


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """The chunks of one choice, at least one, as if it had gained all at once."""
    logprobs = [chunk.logprobs for chunk in chunks if chunk.logprobs is not None]
    return Chunk(
        choice=chunks[0].choice,
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token_id for chunk in chunks for token_id in chunk.token_ids),
        logprobs=tuple(entry for entries in logprobs for entry in entries) if logprobs else None,
        finish_reason=chunks[-1].finish_reason,
        prompt_logprobs=chunks[0].prompt_logprobs,
        stop_reason=chunks[-1].stop_reason,
        forced=b"".join(chunk.forced for chunk in chunks),
    )


def with_top(
    entries: tuple[TokenLogprob | None, ...] | None, num_top: int | None
) -> tuple[TokenLogprob | None, ...] | None:
    """Those of a prompt with ``num_top`` alternatives: echo and answer may ask for different numbers."""
    if entries is None or num_top is None:
        return None
    if all(entry is None or len(entry.top) <= num_top for entry in entries):
        return entries
    return tuple([None if entry is None else replace(entry, top=entry.top[:num_top]) for entry in entries])
