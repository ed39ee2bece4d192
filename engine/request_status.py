"""What a request does now, for people who watch: counts and a phase, never a token.

Owns the words and how they follow from a request's sequences; knows neither who asks nor when.
``running_statuses`` runs on the engine thread, between two steps; the rest are plain values for any
thread.
"""

from collections import abc
from dataclasses import dataclass
from enum import StrEnum

from engine.request_state import RequestState
from engine.sequence import Sequence, SequenceStatus


class RequestPhase(StrEnum):
    WAITING = "waiting"  # in the queue, or put back there
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """Counts are tokens, over all ``num_sequences`` of the request where they are of its output.

    Attributes:
        caller_name: as in ``Caller``.
        num_cached_tokens: how many of the prompt's were found in the prefix cache.
        num_computed_tokens: prompt and output whose K and V are there, of the sequence that is furthest.
        num_forced_tokens: how many of the output's a grammar left no choice about.
        num_accepted_draft_tokens: how many of the output's were guessed.
        max_output_tokens: ``None`` if only the context bounds it.
        age_s: since it arrived.
    """

    request_id: str
    caller_name: str
    phase: RequestPhase
    num_sequences: int
    num_prompt_tokens: int
    num_cached_tokens: int = 0
    num_computed_tokens: int = 0
    num_output_tokens: int = 0
    num_forced_tokens: int = 0
    num_accepted_draft_tokens: int = 0
    max_output_tokens: int | None
    age_s: float = 0.0
    is_constrained: bool
    is_scoring: bool


def running_statuses(requests: abc.Iterable[RequestState]) -> tuple[RequestStatus, ...]:
    """Of those that have left the queue, in the order of their arrival; some microseconds each."""
    return tuple([_status(request) for request in requests if request.sequences[0].admitted_s])


def _status(request: RequestState) -> RequestStatus:
    sequences = request.sequences
    first, is_scoring = sequences[0], request.scoring is not None
    generated = [] if is_scoring else sequences
    return RequestStatus(
        request_id=request.request_id,
        caller_name=first.caller.name,
        phase=_phase(sequences),
        num_sequences=len(sequences),
        num_prompt_tokens=first.num_prompt_tokens,
        num_cached_tokens=first.num_cached_tokens,
        num_computed_tokens=max(seq.num_computed_tokens for seq in sequences),
        num_output_tokens=sum(seq.num_output_tokens for seq in generated),
        num_forced_tokens=sum(seq.forced.count(1) for seq in generated),
        num_accepted_draft_tokens=sum(seq.num_accepted_draft_tokens for seq in generated),
        max_output_tokens=sum(seq.max_num_tokens - seq.num_prompt_tokens for seq in generated),
        is_constrained=first.params.grammar is not None,
        is_scoring=is_scoring,
    )


def _phase(sequences: abc.Iterable[Sequence]) -> RequestPhase:
    """The furthest that one of them is in."""
    running = [seq for seq in sequences if seq.status is SequenceStatus.RUNNING]
    if any(seq.decodes for seq in running):
        return RequestPhase.DECODE
    return RequestPhase.PREFILL if running else RequestPhase.WAITING
