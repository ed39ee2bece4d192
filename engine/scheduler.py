"""Who runs in the next step, and what the step's result means for every sequence.

Owns the waiting and the running queue; knows neither text nor HTTP nor tensors. Engine thread only.

Round robin, in three parts of ``schedule``:

* Admission, in order of arrival, while there is a seat (``max_num_seqs``) and room for the tokens known so far.
* Work: every running sequence that decodes gets its token; what is left of ``max_num_batched_tokens`` goes to prefill
  chunks, to the sequence first whose last whole chunk is the longest ago.
* Memory: oldest first. If no block is free, the youngest sequence is preempted, and recomputed later.

And a fourth that costs nobody anything: guesses at the next tokens (``prompt_lookup``) go into rows, tokens of the budget and
blocks that are left over after all this, so a step may bring a sequence several tokens.

What follows, with S = max_num_seqs and C = prefill_chunk_tokens (S + C <= max_num_batched_tokens):

* While memory suffices, a sequence with N known tokens samples its next one in at most S * ceil(N / C) steps
  after its admission, and then one in every step: each step serves a whole chunk to the first in turn, so
  each of at most S sequences is first once in S steps.
* Whatever memory does, that holds for the oldest running sequence: it takes blocks from all others and none from it.
  So it ends after at most S * ceil(N / C) + max_tokens steps and the next oldest follows: nobody waits forever.
* Sequences are admitted in order of arrival; only a sibling (n > 1) that waits for the shared prompt lets others pass,
  and its seat is kept meanwhile.
"""

from bisect import insort
from collections import abc

from engine.errors import RequestError
from engine.kv_cache_manager import KVCacheManager
from engine.scheduler_config import SchedulerConfig
from engine.sequence import Batch, ScheduledSequence, Sequence, SequenceStatus
from engine.step_failures import StepFailures


class Scheduler:
    """Decides; the caller runs the batch, hands the tokens to ``update`` and ends sequences with ``finish``."""

    def __init__(self, config: SchedulerConfig, kv_cache_manager: KVCacheManager) -> None:
        kv_cache_manager.check_capacity(config.max_model_len, config.prefill_chunk_tokens)
        self.config = config
        self.num_preemptions = 0
        self.num_prefix_query_tokens = 0
        self.num_prefix_hit_tokens = 0
        self.num_drafts = 0
        self.num_draft_tokens = 0
        self.num_accepted_draft_tokens = 0
        self._kv = kv_cache_manager
        self._waiting: list[Sequence] = []  # both queues oldest first
        self._running: list[Sequence] = []
        self._newest_seq_id = -1
        self._num_turns = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def kv_cache_usage(self) -> float:
        return self._kv.usage

    def add(self, seq: Sequence) -> None:
        """Put a sequence at the end of the queue; ``RequestError`` if it could never fit."""
        assert seq.seq_id > self._newest_seq_id, "seq_id grows with arrival"
        self._check_length(seq)
        self._newest_seq_id = seq.seq_id
        self._waiting.append(seq)

    def _check_length(self, seq: Sequence) -> None:
        limit = self.config.max_model_len
        num_prompt, num_completion = seq.num_prompt_tokens, seq.max_num_tokens - seq.num_prompt_tokens
        if num_prompt < 1:
            raise RequestError("The prompt is empty: it must have at least 1 token.", param="prompt")
        if seq.max_num_tokens > limit or (num_completion < 1 and seq.params.max_tokens is None):
            raise RequestError(
                f"The context has room for {limit} tokens; the prompt has {num_prompt} and "
                f"{max(1, num_completion)} more are asked for.",
                param="max_tokens" if num_prompt < limit else "prompt",
                code="context_length_exceeded",
            )

    def abort(self, request_id: str) -> None:
        """End what is left of a request, in whatever phase."""
        for seq in [*self._running, *self._waiting]:
            if seq.request_id == request_id:
                self.finish(seq)

    def finish(self, seq: Sequence, *, num_surplus_tokens: int = 0) -> None:
        """The end of every sequence: end of text, stop string, length, abort, failure. Its blocks are free at once.

        ``num_surplus_tokens`` of its last step's tokens come after what ended it, and are forgotten.
        Also allowed between ``schedule`` and ``update``, which is then not called for it.
        """
        assert not seq.is_finished, f"sequence {seq.seq_id} ends twice"
        del seq.token_ids[seq.num_tokens - num_surplus_tokens :]
        (self._running if seq.status is SequenceStatus.RUNNING else self._waiting).remove(seq)
        self._kv.free(seq)
        seq.status = SequenceStatus.FINISHED

    def schedule(self, failures: StepFailures) -> Batch:
        """Choose the work of the next step; empty only if there is none.

        Takes blocks but computes nothing: a batch that was never run may be forgotten, and the next call plans again.
        A sequence for which guessing fails is scheduled without guesses.
        """
        for seq in self._running:
            self._kv.release_surplus(seq)
        self._admit()
        return self._with_drafts(self._place(self._plan()), failures)

    def _admit(self) -> None:
        num_seats = self.config.max_num_seqs - len(self._running)
        for seq in self._waiting[:num_seats]:
            if seq.waits_for_leader:
                continue
            hit = self._kv.find_prefix(seq)
            if not self._kv.has_room_for(seq, hit, running=self._running):
                break
            self._kv.attach(seq, hit)
            self._start(seq, hit.num_tokens)

    def _start(self, seq: Sequence, num_cached_tokens: int) -> None:
        self._waiting.remove(seq)
        insort(self._running, seq, key=lambda peer: peer.seq_id)
        self._take_turn(seq)  # newcomers queue up behind those that prefill already
        if seq.status is SequenceStatus.WAITING:  # not when it comes back: those tokens were its own
            seq.num_cached_tokens = num_cached_tokens
            if seq.index == 0:  # siblings always hit: counting them would only hide how well requests share
                self.num_prefix_query_tokens += seq.num_tokens
                self.num_prefix_hit_tokens += num_cached_tokens
        seq.status = SequenceStatus.RUNNING

    def _take_turn(self, seq: Sequence) -> None:
        self._num_turns += 1
        seq.last_turn = self._num_turns

    def _plan(self) -> dict[Sequence, int]:
        """How many tokens each running sequence should compute, within the token budget."""
        plan = {seq: 1 for seq in self._running if seq.num_uncomputed_tokens == 1}
        budget = self.config.max_num_batched_tokens - len(plan)
        prefills = [seq for seq in self._running if seq not in plan]
        for seq in sorted(prefills, key=lambda peer: peer.last_turn):
            assert seq.num_uncomputed_tokens > 0, f"sequence {seq.seq_id} has nothing to compute and was not finished"
            chunk = min(seq.num_uncomputed_tokens, self.config.prefill_chunk_tokens)
            plan[seq] = min(chunk, budget)
            budget -= plan[seq]
            if plan[seq] == chunk:  # whoever gets less stays first in turn
                self._take_turn(seq)
        return plan

    def _place(self, plan: abc.Mapping[Sequence, int]) -> Batch:
        """Give the planned tokens their blocks, oldest sequence first."""
        scheduled = []
        for seq in self._running.copy():
            if seq.status is SequenceStatus.RUNNING:  # not preempted for an older one just now
                num_tokens = self._make_room(seq, plan[seq])
                if num_tokens > 0:
                    scheduled.append(ScheduledSequence(seq, num_tokens))
        return Batch(tuple(scheduled))

    def _make_room(self, seq: Sequence, num_tokens: int) -> int:
        """Allocate, if need be at the cost of younger ones; the youngest makes do with what is left."""
        while not self._kv.allocate(seq, num_tokens):
            youngest = self._running[-1]
            if youngest is seq:
                num_tokens = self._kv.num_tokens_with_room(seq)
            else:
                self._preempt(youngest)
        return num_tokens

    def _with_drafts(self, batch: Batch, failures: StepFailures) -> Batch:
        """Let those that decode guess, each in its share of the rows that are left; what one leaves goes to the next."""
        num_left = sum(_decodes(item) for item in batch.scheduled)
        num_rows = min(self.config.max_num_batched_tokens - batch.num_rows, self.config.max_draft_rows - num_left)
        scheduled = []
        for item in batch.scheduled:
            drafted = item
            if _decodes(item):
                with failures.of(item.seq.request_id):
                    drafted = self._draft(item, num_rows // num_left)
                num_rows -= len(drafted.draft_token_ids)
                num_left -= 1
            scheduled.append(drafted)
        return Batch(tuple(scheduled))

    def _draft(self, item: ScheduledSequence, max_drafts: int) -> ScheduledSequence:
        """Within every limit that holds for known tokens too, and with blocks that nobody needs now."""
        seq = item.seq
        max_drafts = min(
            max_drafts,
            self.config.prefill_chunk_tokens - 1,
            seq.max_num_tokens - seq.num_tokens - 1,  # the step samples one token more than are accepted
            self._kv.num_tokens_with_room(seq) - 1,
        )
        drafts = seq.lookup.propose(max_drafts)
        if not drafts.token_ids:
            return item
        has_room = self._kv.allocate(seq, 1 + len(drafts.token_ids))
        assert has_room
        return ScheduledSequence(seq, 1, drafts.token_ids, has_predicted_drafts=drafts.are_predicted)

    def _preempt(self, seq: Sequence) -> None:
        self._running.remove(seq)
        self._kv.free(seq)
        seq.status = SequenceStatus.PREEMPTED
        insort(self._waiting, seq, key=lambda peer: peer.seq_id)
        self.num_preemptions += 1

    def update(self, item: ScheduledSequence, token_ids: abc.Sequence[int]) -> None:
        """Take in what a step that ran brought one of its sequences: one or more tokens if it samples.

        All of them but the last were drafts. The caller ends those that end; all others must be able to go on.
        """
        seq = item.seq
        assert not seq.is_finished
        num_drafts, num_accepted = len(item.draft_token_ids), max(0, len(token_ids) - 1)
        seq.lookup.settle(num_drafts=num_drafts, num_accepted=num_accepted)
        self.num_drafts += num_drafts > 0
        self.num_draft_tokens += num_drafts
        self.num_accepted_draft_tokens += num_accepted
        seq.token_ids += token_ids
        self._kv.mark_computed(seq, item.num_scheduled_tokens + num_accepted)

    def check_integrity(self) -> None:
        """Assert every invariant of queues and memory that must hold between two calls."""
        assert len(self._running) <= self.config.max_num_seqs
        for queue in (self._waiting, self._running):
            ids = [seq.seq_id for seq in queue]
            assert ids == sorted(set(ids)), f"a queue is out of order: {ids}"
        for seq in self._waiting:
            assert seq.status in (SequenceStatus.WAITING, SequenceStatus.PREEMPTED)
            assert seq.num_computed_tokens == 0
        for seq in self._running:
            assert seq.status is SequenceStatus.RUNNING
            assert seq.num_tokens <= seq.max_num_tokens <= self.config.max_model_len
        self._kv.check_integrity(self._running)


def _decodes(item: ScheduledSequence) -> bool:
    return item.samples and item.num_scheduled_tokens == 1
