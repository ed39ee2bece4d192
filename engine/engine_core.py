"""The heart of the engine, synchronous: requests in, outputs out, one step at a time.

``schedule -> run -> update``, then text and endings. Owns what a request is beyond its sequences: its detokenizers, its end
tokens, how far it was reported. Knows no threads, no HTTP. One thread uses it; in the server that is the engine thread.
"""

import random
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field, replace

from engine.errors import EngineError, RequestError, StepError
from engine.outputs import FinishReason, RequestOutput, SequenceDelta, TokenLogprob
from engine.runners.model_runner import ModelRunner, StepOutput
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler, StepEvent
from engine.sequence import Batch, Sequence, new_sequences
from gemma3.text.detokenizer import Detokenizer


@dataclass(slots=True)
class _Request:
    """Mutable. ``detokenizers`` by index of the sequence; ``deltas`` collects one step's news."""

    request_id: str
    sequences: list[Sequence]
    detokenizers: list[Detokenizer]
    end_token_ids: frozenset[int]
    prompt_logprobs: list[TokenLogprob | None] | None
    deltas: list[SequenceDelta] = field(default_factory=list)
    is_started: bool = False

    @property
    def is_finished(self) -> bool:
        return all(seq.is_finished for seq in self.sequences)


@dataclass(frozen=True, slots=True)
class StepResult:
    """``errors`` has the requests that this step ended with an error, by id; they get no further output."""

    outputs: list[RequestOutput]
    errors: dict[str, EngineError]


@dataclass(frozen=True, slots=True)
class _Said:
    """What a sequence says in a step: ``num_tokens`` of those it gained; what came after its end is not said."""

    text: str
    num_tokens: int
    finish_reason: FinishReason | None
    stop_reason: str | int | None = None


class EngineCore:
    """Continuous batching over one model.

    ``make_runner`` is given the function that tells a sequence's end tokens, which sampling needs for ``min_tokens``.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        make_runner: Callable[[Callable[[Sequence], frozenset[int]]], ModelRunner],
        *,
        token_to_bytes: Callable[[int], bytes],
        vocab_size: int,
        eos_token_ids: frozenset[int],
    ) -> None:
        self.scheduler = scheduler
        self._runner = make_runner(self._end_token_ids)
        self._token_to_bytes = token_to_bytes
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._requests: dict[str, _Request] = {}
        self._next_seq_id = 0
        self._random = random.Random()  # noqa: S311 (seeds of sampling, not secrets)

    @property
    def has_unfinished_requests(self) -> bool:
        return bool(self._requests)

    def add_request(
        self,
        request_id: str,
        prompt_token_ids: Iterable[int],
        params: SamplingParams,
        *,
        prediction_token_ids: Tokens[int] = (),
    ) -> None:
        """Queue a request. What the output is predicted to be only makes it faster, where it is right.

        Raises:
            RequestError: the prompt is empty, too long, or holds an id outside the vocabulary; or a field names one.
        """
        prompt = list(prompt_token_ids)
        prediction = prediction_token_ids[: self.scheduler.config.max_model_len]
        self._check_token_ids(prompt, prediction, params)
        if params.seed is None:
            params = replace(params, seed=self._random.getrandbits(62))
        sequences = new_sequences(
            request_id,
            prompt,
            params=params,
            first_seq_id=self._next_seq_id,
            max_model_len=self.scheduler.config.max_model_len,
            prediction_token_ids=prediction,
        )
        for seq in sequences:
            self.scheduler.add(seq)
        self._next_seq_id += len(sequences)
        self._requests[request_id] = self._new_request(request_id, sequences, params)

    def _new_request(self, request_id: str, sequences: list[Sequence], params: SamplingParams) -> _Request:
        eos = frozenset() if params.ignore_eos else self._eos_token_ids
        return _Request(
            request_id,
            sequences,
            [Detokenizer(self._token_to_bytes, stop=params.stop, min_tokens=params.min_tokens) for _ in sequences],
            end_token_ids=eos | frozenset(params.stop_token_ids),
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
        )

    def _check_token_ids(self, prompt: list[int], prediction: Tokens[int], params: SamplingParams) -> None:
        """At the door, since one id outside the vocabulary would fail a whole step."""
        fields: dict[str, Iterable[int]] = {
            "prompt": prompt,
            "prediction": prediction,
            "logit_bias": params.logit_bias,
            "stop_token_ids": params.stop_token_ids,
        }
        for name, token_ids in fields.items():
            for token_id in token_ids:
                if not 0 <= token_id < self._vocab_size:
                    raise RequestError(
                        f"{name} holds the token id {token_id}; ids from 0 to {self._vocab_size - 1} are allowed.",
                        param=name,
                    )

    def _end_token_ids(self, seq: Sequence) -> frozenset[int]:
        return self._requests[seq.request_id].end_token_ids

    def abort_request(self, request_id: str) -> None:
        """Forget a request in any phase; its blocks are free at once. An unknown or finished one is passed over."""
        if self._requests.pop(request_id, None) is not None:
            self.scheduler.abort(request_id)

    def step(self) -> StepResult:
        """Compute one batch and report what it brought. Never raises for the fault of a request."""
        batch = self.scheduler.schedule()
        newly_started = self._newly_started(batch)
        errors: dict[str, EngineError] = {}
        output = self._run(batch, errors)
        for seq_id, reason in output.failed.items():
            request_id = next(item.seq.request_id for item in batch.scheduled if item.seq.seq_id == seq_id)
            errors.setdefault(request_id, StepError(f"The model step of this request failed: {reason}."))
        for request_id in errors:
            self.abort_request(request_id)
        self._collect_prompt_logprobs(batch, output)
        touched = dict.fromkeys(newly_started)
        for event in self.scheduler.update(batch, output.token_ids):
            touched[event.seq.request_id] = None
            self._take_in(event, output)
        outputs = [self._report(request_id) for request_id in touched if request_id in self._requests]
        return StepResult(outputs, errors)

    def _newly_started(self, batch: Batch) -> list[str]:
        """Requests that leave the queue with this step."""
        started = []
        for item in batch.scheduled:
            request = self._requests[item.seq.request_id]
            if not request.is_started:
                request.is_started = True
                started.append(request.request_id)
        return started

    def _run(self, batch: Batch, errors: dict[str, EngineError]) -> StepOutput:
        """Run the batch; if that fails, each sequence alone, so that only the culprit's request fails."""
        if not batch.scheduled:
            return StepOutput()
        try:
            return self._runner.run(batch)
        except Exception as error:  # whatever it is, it belongs to one request
            if len({item.seq.request_id for item in batch.scheduled}) == 1:
                errors[batch.scheduled[0].seq.request_id] = StepError("The model step of this request failed.")
                errors[batch.scheduled[0].seq.request_id].__cause__ = error
                return StepOutput()
        output = StepOutput()
        for request_id in dict.fromkeys(item.seq.request_id for item in batch.scheduled):
            alone = Batch(tuple(item for item in batch.scheduled if item.seq.request_id == request_id))
            output.merge(self._run(alone, errors))
        return output

    def _collect_prompt_logprobs(self, batch: Batch, output: StepOutput) -> None:
        for item in batch.scheduled:
            entries = output.prompt_logprobs.get(item.seq.seq_id)
            request = self._requests.get(item.seq.request_id)
            if entries and request is not None and request.prompt_logprobs is not None:
                # A preempted prompt is computed again: what is known already is written over.
                request.prompt_logprobs[item.start + 1 : item.start + 1 + len(entries)] = entries

    def _take_in(self, event: StepEvent, output: StepOutput) -> None:
        """One sequence's new tokens: their text, and whether it ends with one of them. What follows that one is dropped."""
        seq, request = event.seq, self._requests[event.seq.request_id]
        said = self._read(event, request)
        text = said.text
        if said.finish_reason is not None:
            text += request.detokenizers[seq.index].finish()
            num_surplus_tokens = len(event.token_ids) - said.num_tokens
            self.scheduler.finish(seq, said.finish_reason, num_surplus_tokens=num_surplus_tokens)
        logprobs = output.logprobs.get(seq.seq_id, [])
        num_predicted = len(event.scheduled.draft_token_ids) if event.scheduled.has_predicted_drafts else 0
        num_accepted = min(num_predicted, event.num_accepted_drafts, said.num_tokens)
        request.deltas.append(
            SequenceDelta(
                index=seq.index,
                text=text,
                token_ids=event.token_ids[: said.num_tokens],
                logprobs=None if seq.params.logprobs is None else tuple(logprobs[: said.num_tokens]),
                finish_reason=said.finish_reason,
                stop_reason=said.stop_reason,
                num_accepted_predictions=num_accepted,
                num_rejected_predictions=num_predicted - num_accepted,
            )
        )

    def _read(self, event: StepEvent, request: _Request) -> _Said:
        """Token by token, up to the one that ends the sequence."""
        seq, detokenizer = event.seq, request.detokenizers[event.seq.index]
        text = ""
        for num_said, token_id in enumerate(event.token_ids, start=1):
            if token_id in request.end_token_ids:  # before min_tokens the runner chooses none of them
                stop_reason = None if token_id in self._eos_token_ids else token_id
                return _Said(text, num_said, FinishReason.STOP, stop_reason)
            text += detokenizer.push(token_id)
            if detokenizer.stop_match is not None:
                return _Said(text, num_said, FinishReason.STOP, detokenizer.stop_match)
        return _Said(text, len(event.token_ids), FinishReason.LENGTH if seq.has_reached_max_tokens else None)

    def _report(self, request_id: str) -> RequestOutput:
        """What the step brought a request; a finished one is forgotten."""
        request = self._requests[request_id]
        deltas, request.deltas = tuple(request.deltas), []
        first = request.sequences[0]
        prompt_logprobs = None
        if deltas and request.prompt_logprobs is not None:
            prompt_logprobs, request.prompt_logprobs = tuple(request.prompt_logprobs), None
        if request.is_finished:
            del self._requests[request_id]
        return RequestOutput(
            request_id=request_id,
            deltas=deltas,
            finished=request.is_finished,
            num_prompt_tokens=first.num_prompt_tokens,
            num_cached_tokens=first.num_cached_tokens,
            prompt_logprobs=prompt_logprobs,
        )
