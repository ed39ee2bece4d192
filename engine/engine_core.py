"""The heart of the engine, synchronous: requests in, outputs out, one step at a time.

``schedule -> run -> take in``, then text and endings. ``request_state`` has what a request is beyond its sequences.
Knows no threads, no HTTP. One thread uses it; in the server that is the engine thread.
"""

import random
import time
from collections import abc
from dataclasses import replace
from itertools import groupby

from engine.batch import Batch, ScheduledSequence
from engine.caller import ANYBODY, Caller
from engine.errors import StepError
from engine.outputs import RequestOutput, SequenceDelta, StepResult
from engine.request_checks import check_choice, check_token_ids
from engine.request_state import News, RequestState, delta_of, new_detokenizer, news_of, report, with_predictions
from engine.runners.model_runner import ModelRunner, SequenceResult
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler
from engine.scoring import SCORING, Scoring, check_continuations
from engine.sequence import Sequence, new_sequences
from engine.step_failures import StepFailures
from engine.step_sizes import StepSizeCounter
from gemma3.text.detokenizer import Detokenizer


class EngineCore:
    """Continuous batching over one model."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: ModelRunner,
        *,
        token_to_bytes: abc.Callable[[int], bytes],
        vocab_size: int,
        eos_token_ids: frozenset[int],
        enable_prefix_caching: bool = True,
    ) -> None:
        self.scheduler = scheduler
        self._runner = runner
        self._token_to_bytes = token_to_bytes
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._enable_prefix_caching = enable_prefix_caching
        self.step_sizes = StepSizeCounter()
        self.num_output_tokens = 0
        self.requests: dict[str, RequestState] = {}
        self._next_seq_id = 0
        self._random = random.Random()  # noqa: S311 (seeds of sampling, not secrets)

    @property
    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def add_request(
        self,
        request_id: str,
        prompt_token_ids: abc.Iterable[int],
        params: SamplingParams,
        *,
        prediction_token_ids: abc.Sequence[int] = (),
        caller: Caller = ANYBODY,
    ) -> None:
        """Queue a request. What the output is predicted to be only makes it faster, where it is right.

        Raises:
            RequestError: the prompt is empty, too long, or holds an id outside the vocabulary; or a field names one.
        """
        prompt = list(prompt_token_ids)
        prediction = prediction_token_ids[: self.scheduler.config.max_model_len]
        check_token_ids(prompt, params, prediction=prediction, vocab_size=self._vocab_size)
        if params.seed is None:
            params = replace(params, seed=self._random.getrandbits(62))
        if not self._enable_prefix_caching:  # siblings share a prefix all the same
            caller = replace(caller, prefix_salt=request_id)
        end_token_ids = self._end_token_ids(params)
        check_choice(params, end_token_ids)
        sequences = new_sequences(
            request_id,
            prompt,
            params=params,
            first_seq_id=self._next_seq_id,
            max_model_len=self.scheduler.config.max_model_len,
            end_token_ids=end_token_ids,
            caller=caller,
            prediction_token_ids=prediction,
        )
        request = RequestState(
            request_id,
            sequences,
            [new_detokenizer(self._token_to_bytes, params) for _ in sequences],
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
        )
        for seq in sequences:
            self.scheduler.add(seq)
        self._next_seq_id += len(sequences)
        self.requests[request_id] = request

    def add_scoring_request(
        self,
        request_id: str,
        prompt_token_ids: abc.Iterable[int],
        continuations: abc.Sequence[tuple[int, ...]],
        *,
        caller: Caller = ANYBODY,
    ) -> None:
        """Queue a request for the log probabilities of known continuations; it generates nothing.

        Raises:
            RequestError: the prompt or a continuation is empty, too long, or holds an id outside the vocabulary.
        """
        prompt = list(prompt_token_ids)
        limit = self.scheduler.config.max_model_len
        check_token_ids(prompt, SCORING, prediction=(), vocab_size=self._vocab_size)
        check_continuations(
            continuations, vocab_size=self._vocab_size, num_prompt_tokens=len(prompt), max_model_len=limit
        )
        if not self._enable_prefix_caching:
            caller = replace(caller, prefix_salt=request_id)
        scoring = Scoring(tuple(continuations))
        first = scoring.first_sequence(request_id, prompt, seq_id=self._next_seq_id, caller=caller)
        self.scheduler.add(first)
        self._next_seq_id += 1
        self.requests[request_id] = RequestState(request_id, [first], [], scoring=scoring)

    def _end_token_ids(self, params: SamplingParams) -> frozenset[int]:
        """A grammar ends with its own, whatever else is ignored: nothing may follow."""
        eos = frozenset() if params.ignore_eos else self._eos_token_ids
        of_grammar = frozenset() if params.grammar is None else params.grammar.end_token_ids
        return eos | of_grammar | frozenset(params.stop_token_ids)

    def abort_request(self, request_id: str) -> None:
        """Forget a request in any phase; its blocks are free at once. An unknown or finished one is passed over."""
        request = self.requests.pop(request_id, None)
        if request is not None:
            self.scheduler.abort(request.sequences)

    def shrink(self) -> None:
        """Give memory back after busy times: that of K and V which no request holds, but for the latest prefixes."""
        empty = self.scheduler.shrink_cache()
        self._runner.release_blocks(empty.global_block_ids, is_sliding=False)
        self._runner.release_blocks(empty.sliding_block_ids, is_sliding=True)

    def step(self, *, on_scheduled: abc.Callable[[], None] = lambda: None) -> StepResult:
        """Compute one batch and report what it brought. What is raised for a request ends that request alone.

        ``on_scheduled`` is called right before the batch is computed, which the native core does without the GIL: what other
        threads are given to do there costs the step least.
        """
        failures = StepFailures()
        batch = self.scheduler.schedule(failures)
        for copy in self.scheduler.take_copies():
            with failures.of(copy.request_id):
                self._runner.copy_block(copy)
        on_scheduled()
        for item, result in zip(batch.scheduled, self._run_timed(batch, failures), strict=True):
            if item.seq.request_id not in failures:
                with failures.of(item.seq.request_id):
                    self._take_in(item, result)
        outputs = self._report_all(dict.fromkeys(item.seq.request_id for item in batch.scheduled), failures)
        for request_id in failures.errors:
            self.abort_request(request_id)
        return StepResult(outputs, failures.errors)

    def _run_timed(self, batch: Batch, failures: StepFailures) -> list[SequenceResult]:
        """Run the batch, and let the scheduler learn what that cost; of a step that failed there is nothing to learn."""
        began_s = time.perf_counter()
        results = self._run(batch, failures)
        if batch.scheduled:
            self.step_sizes.count(batch.num_rows)
        if not failures.errors:
            self.scheduler.pace.observe(batch, time.perf_counter() - began_s)
        return results

    def _run(self, batch: Batch, failures: StepFailures) -> list[SequenceResult]:
        """Run the batch; if that fails, each request's part alone, so that only the culprit's request fails."""
        if not batch.scheduled:
            return []
        try:
            return self._runner.run(batch)
        except Exception:  # whatever it is, it belongs to one request, and comes again
            results: list[SequenceResult] = []
            for request_id, items in groupby(batch.scheduled, key=lambda item: item.seq.request_id):
                alone = Batch(tuple(items))
                own = [SequenceResult()] * len(alone.scheduled)
                with failures.of(request_id):
                    own = self._runner.run(alone)
                results += own
            return results

    def _take_in(self, item: ScheduledSequence, result: SequenceResult) -> None:
        """What the step brought one sequence."""
        if not result.is_finite:
            raise StepError("The model step of this request failed: the logits are not finite.")
        seq, request = item.seq, self.requests[item.seq.request_id]
        if request.scoring is not None:
            self._take_scores(item, result, request, request.scoring)
            return
        if request.prompt_logprobs is not None and result.prompt_logprobs:
            # A preempted prompt is computed again: what is known already is written over.
            end = item.start + 1 + len(result.prompt_logprobs)
            request.prompt_logprobs[item.start + 1 : end] = result.prompt_logprobs
        num_untold = seq.num_tokens - seq.num_told_tokens
        self.scheduler.update(item, result.token_ids)
        news = news_of(seq, result)
        if news.token_ids or seq.num_uncomputed_tokens == 0:  # with max_tokens=0 the prompt is all there is
            delta = self._read(seq, news, request.detokenizers[seq.index])
            request.deltas.append(
                with_predictions(delta, item, num_chosen=len(result.token_ids), num_untold=num_untold)
            )

    def _take_scores(
        self, item: ScheduledSequence, result: SequenceResult, request: RequestState, scoring: Scoring
    ) -> None:
        """When the prompt is computed, the continuations begin."""
        seq = item.seq
        scoring.take(seq, result.untold_logprobs)
        self.scheduler.update(item, ())
        if seq.num_told_tokens < seq.num_tokens:
            return
        self.scheduler.finish(seq)
        if seq.index == 0:
            for further in scoring.further_sequences(seq, first_seq_id=self._next_seq_id):
                request.sequences.append(further)
                self.scheduler.add(further)
                self._next_seq_id += 1

    def _read(self, seq: Sequence, news: News, detokenizer: Detokenizer) -> SequenceDelta:
        """The text of new tokens; the sequence ends here if they end it."""
        delta = delta_of(seq, news, detokenizer, eos_token_ids=self._eos_token_ids)
        self.num_output_tokens += len(delta.token_ids)
        if delta.finish_reason is not None:
            self.scheduler.finish(seq, num_surplus_tokens=seq.num_tokens - seq.num_told_tokens)
        return delta

    def _report_all(self, request_ids: abc.Iterable[str], failures: StepFailures) -> list[RequestOutput]:
        """The news of requests that left the queue or gained something; finished ones are forgotten."""
        outputs = []
        for request_id in request_ids:
            request = self.requests[request_id]
            has_news = request.deltas or request.is_finished or not request.is_started
            if request_id not in failures and has_news:
                with failures.of(request_id):
                    outputs.append(report(request))
                    if outputs[-1].finished:
                        del self.requests[request_id]
        return outputs
