"""What the engine knows of a request beyond its sequences, and the words in which it is told.

Owns which tokens of a sequence are due to be told, what a step's news are, which of them is the
last, and what a request does now. Ends nothing itself: that and errors are the engine core's. Engine thread only.
"""

from collections import abc
from dataclasses import dataclass, field, replace

from engine.batch import ScheduledSequence
from engine.outputs import FinishReason, RequestOutput, SequenceDelta, TokenLogprob
from engine.request_status import RequestPhase, RequestStatus
from engine.runners.model_runner import SequenceResult
from engine.sampling_params import SamplingParams
from engine.scoring import Scoring
from engine.sequence import Sequence, SequenceStatus
from gemma3.text.detokenizer import Detokenizer


@dataclass(slots=True)
class RequestState:
    """Mutable. ``detokenizers`` by index of the sequence; ``deltas`` collects one step's news."""

    request_id: str
    sequences: list[Sequence]
    detokenizers: list[Detokenizer]
    prompt_logprobs: list[TokenLogprob | None] | None = None
    scoring: Scoring | None = None
    deltas: list[SequenceDelta] = field(default_factory=list)
    is_started: bool = False

    @property
    def is_finished(self) -> bool:
        return all(seq.is_finished for seq in self.sequences)


@dataclass(frozen=True, slots=True)
class News:
    """Tokens of one sequence that are told in this step, and their log probabilities if they are asked for."""

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None


def new_detokenizer(token_to_bytes: abc.Callable[[int], bytes], params: SamplingParams) -> Detokenizer:
    """Of one sequence."""
    lead = "" if params.grammar is None else params.grammar.spec.lead
    return Detokenizer(token_to_bytes, stop=params.stop, min_tokens=params.min_tokens, lead=lead)


def news_of(seq: Sequence, result: SequenceResult) -> News:
    """All tokens that were not told yet, or, with log probabilities, those of them whose own are known."""
    if result.logprobs is None:
        is_due = bool(result.token_ids) or seq.num_uncomputed_tokens == 0 or seq.is_complete
        return News(tuple(seq.token_ids[seq.num_told_tokens :]) if is_due else ())
    logprobs = result.untold_logprobs + result.logprobs
    return News(tuple(seq.token_ids[seq.num_told_tokens :][: len(logprobs)]), logprobs)


def delta_of(seq: Sequence, news: News, detokenizer: Detokenizer, *, eos_token_ids: frozenset[int]) -> SequenceDelta:
    """The text of new tokens, up to the one that ends the sequence; what follows that one is dropped."""
    text, num_read, first = "", 0, seq.num_told_tokens - seq.num_prompt_tokens
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    for token_id in news.token_ids:
        num_read += 1
        if token_id in seq.end_token_ids:  # before min_tokens the runner chooses none of them
            finish_reason = FinishReason.STOP
            stop_reason = None if token_id in eos_token_ids else token_id
            break
        text += detokenizer.push(token_id)
        if detokenizer.stop_match is not None:
            finish_reason, stop_reason = FinishReason.STOP, detokenizer.stop_match
            break
    seq.num_told_tokens += num_read
    if finish_reason is None and seq.chooses_no_more and seq.num_told_tokens == seq.num_tokens:
        finish_reason = FinishReason.STOP if seq.is_complete else FinishReason.LENGTH
    if finish_reason is not None:
        text += detokenizer.finish()
    return SequenceDelta(
        index=seq.index,
        text=text,
        token_ids=news.token_ids[:num_read],
        logprobs=None if news.logprobs is None else news.logprobs[:num_read],
        finish_reason=finish_reason,
        stop_reason=stop_reason,
        forced=bytes(seq.forced[first : first + num_read]) if seq.forced else b"",
    )


def with_predictions(
    delta: SequenceDelta, item: ScheduledSequence, *, num_chosen: int, num_untold: int
) -> SequenceDelta:
    """What became of the request's prediction in it: ``num_untold`` of its tokens were there before those that the step chose."""
    num_predicted = len(item.draft_token_ids) if item.has_predicted_drafts else 0
    if not num_predicted:
        return delta
    num_accepted = max(0, min(num_predicted, num_chosen - 1, len(delta.token_ids) - num_untold))
    return replace(delta, num_accepted_predictions=num_accepted, num_rejected_predictions=num_predicted - num_accepted)


def report(request: RequestState) -> RequestOutput:
    """The news since the last report, which are told with it."""
    deltas, request.deltas, request.is_started = tuple(request.deltas), [], True
    prompt_logprobs = None
    if deltas and request.prompt_logprobs is not None:
        prompt_logprobs, request.prompt_logprobs = tuple(request.prompt_logprobs), None
    first = request.sequences[0]
    return RequestOutput(
        request_id=request.request_id,
        deltas=deltas,
        finished=request.is_finished,
        num_prompt_tokens=first.num_prompt_tokens,
        num_cached_tokens=first.num_cached_tokens,
        prompt_logprobs=prompt_logprobs,
        admitted_s=first.admitted_s,
        scores=request.scoring.result() if request.scoring is not None and request.is_finished else (),
    )


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
