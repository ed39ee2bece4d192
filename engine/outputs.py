"""What the engine says of a request: plain values that may cross from the engine thread to the event loop."""

from collections import abc
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from engine.errors import StepError


class FinishReason(StrEnum):
    """Why a sequence ended, with OpenAI's words where OpenAI has one."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log probability (natural log, of the distribution before temperature) of one token, and its rivals.

    ``rank`` counts from 1, the likeliest, ties by id; it is 0 unless it was asked for.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    rank: int = 0


@dataclass(frozen=True, slots=True)
class SequenceDelta:
    """What one of a request's ``n`` sequences gained since the last output.

    ``text`` may lag behind ``token_ids``: it is held back while it may be the start of a stop string or half a
    character. ``finish_reason`` is set exactly once, on the last delta of the sequence; ``stop_reason`` is then the stop string or
    stop token id that ended it, ``None`` for the model's own end or the length. Of the request's prediction so many tokens
    were tried: ``num_accepted_predictions`` are among ``token_ids``, ``num_rejected_predictions`` are not.
    ``forced`` has a byte for each token, 1 if the grammar left no choice; it is empty without a grammar.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    num_accepted_predictions: int = 0
    num_rejected_predictions: int = 0
    forced: bytes = b""


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One step's news of one request.

    ``prompt_logprobs`` (the first entry is ``None``) and ``num_cached_tokens`` come with the first output that has
    deltas. ``finished`` is true on the last output, when all ``n`` sequences have ended. ``admitted_s`` is when the
    request left the queue, by ``time.perf_counter``; 0 is unknown. ``scores`` come with the last output of a request
    that only scores: the log probabilities of each continuation's tokens. ``num_joined``: for how many outputs with deltas
    it stands.
    """

    request_id: str
    deltas: tuple[SequenceDelta, ...]
    finished: bool
    num_prompt_tokens: int
    num_cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    admitted_s: float = 0.0
    scores: tuple[tuple[float, ...], ...] = ()
    num_joined: int = 1


@dataclass(frozen=True, slots=True)
class ContinuationScores:
    """The log probabilities of each continuation's tokens, natural, in the order asked; what the prompt cost."""

    logprobs: tuple[tuple[float, ...], ...]
    num_cached_tokens: int


def joined(outputs: abc.Sequence[RequestOutput]) -> RequestOutput:
    """The news of several outputs of one request, at least one, as if one step had brought them."""
    of_sequence: dict[int, list[SequenceDelta]] = {}
    for output in outputs:
        for delta in output.deltas:
            of_sequence.setdefault(delta.index, []).append(delta)
    first_told = next((output for output in outputs if output.deltas), outputs[0])
    return RequestOutput(
        request_id=outputs[0].request_id,
        deltas=tuple([_joined_deltas(deltas) for deltas in of_sequence.values()]),
        finished=outputs[-1].finished,
        num_prompt_tokens=first_told.num_prompt_tokens,
        num_cached_tokens=first_told.num_cached_tokens,
        prompt_logprobs=first_told.prompt_logprobs,
        admitted_s=outputs[0].admitted_s,
        scores=outputs[-1].scores,
        num_joined=sum(output.num_joined for output in outputs if output.deltas) or 1,
    )


def _joined_deltas(deltas: abc.Sequence[SequenceDelta]) -> SequenceDelta:
    """Of one sequence; the last of them ends it, if any does."""
    logprobs = [delta.logprobs for delta in deltas if delta.logprobs is not None]
    return SequenceDelta(
        index=deltas[0].index,
        text="".join([delta.text for delta in deltas]),
        token_ids=tuple(chain.from_iterable([delta.token_ids for delta in deltas])),
        logprobs=tuple(chain.from_iterable(logprobs)) if logprobs else None,
        finish_reason=deltas[-1].finish_reason,
        stop_reason=deltas[-1].stop_reason,
        num_accepted_predictions=sum(delta.num_accepted_predictions for delta in deltas),
        num_rejected_predictions=sum(delta.num_rejected_predictions for delta in deltas),
        forced=b"".join([delta.forced for delta in deltas]),
    )


@dataclass(frozen=True, slots=True)
class StepResult:
    """``errors`` has the requests that this step ended with an error, by id; they get no further output."""

    outputs: list[RequestOutput]
    errors: dict[str, StepError]
