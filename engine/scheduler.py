"""Who runs in the next step, and what the step's result means for every sequence.

Moves sequences between the waiting and the running queue; knows neither text nor HTTP nor tensors. Engine thread only.

Continuous batching, in three parts of ``schedule``:

* Admission (``waiting_queue``): the preempted first, then one of each caller in turn, while there
  is a seat (``max_num_seqs``) and room for the tokens known so far.
* Work: every running sequence that decodes gets its token (and those that a grammar forces before
  it, while there is room); what is left of
  ``max_num_batched_tokens``, and takes no more time than ``prefill_pace`` allows, goes to prefill
  chunks: a whole one to the sequence whose turn it is, the rest to the shortest remainders.
* Memory: oldest first, by the first admission. If none is free, the youngest is preempted for now.

Before all of that, those who give way leave their seats as soon as there is anybody else, and take
small steps while there is not: whoever comes waits for one such step.

And a fourth that costs nobody anything: while no prompt is computed, guesses at the next tokens
(``prompt_lookup``) go into rows, tokens of the budget and blocks that are left over, so a step may
bring a sequence several tokens. Beside prefill a guess would cost as much as any row, and
``prefill_pace`` could not tell what a decode costs.

The order of prefill: a turn is the shortest remainder's (of equal ones the oldest's), unless the
turn before passed over the oldest; then it is the oldest's. Equal prompts are therefore computed
one after the other as they were admitted, and the first is ready while the last has not begun.

What follows, with S = max_num_seqs and a whole chunk of C tokens: ``prefill_chunk_tokens`` (S + C <=
max_num_batched_tokens) while nobody decodes; else what the pace allows, which is
``prefill_pace.MIN_TOKENS`` at least and that at most. A turn is a step that prefills; steps that
only decode, one a round of the pace, come on top.

* The shortest remainder and the oldest have one of any two turns each. So a prompt of n tokens that
  finds none shorter, and gets none shorter beside it, samples its first one in at most
  2 * ceil(n / C) turns: for a short one that is one chunk's time more than alone. And nothing later
  makes a wait more than twice as long: a prompt samples in at most twice the turns that it and all
  older ones have left, the sum of their ceil(N / C), and then once in every step.
* That is for as long as memory suffices. Whatever memory does, it holds for the oldest running
  sequence: it takes blocks from all others and none from it. So it ends after at most
  2 * ceil(N / C) + max_tokens such steps and the next oldest follows: nobody waits forever.
* Of a caller's sequences none is admitted before an older one, and before the first of a caller at
  most one of each other; only a sibling (n > 1) that waits for the shared prompt lets others pass,
  and its seat is kept meanwhile.
"""

from collections import abc

from engine.batch import Batch, ScheduledSequence
from engine.block_copies import BlockCopy
from engine.drafting import with_drafts
from engine.kv_cache_manager import EmptyBlocks, KVCacheManager
from engine.kv_cache_sizes import BlockCounts
from engine.masking import with_masks
from engine.prefill_pace import PrefillPace, PrefillShare
from engine.request_checks import check_length
from engine.running_queue import RunningQueue
from engine.scheduler_config import SchedulerConfig
from engine.sequence import Sequence, SequenceStatus
from engine.step_failures import StepFailures
from engine.step_plan import StepPlanner
from engine.waiting_queue import WaitingQueue, WaitingRanks


class Scheduler:
    """Decides; whoever runs the batch hands the tokens to ``update`` and ends sequences with ``finish``."""

    def __init__(self, config: SchedulerConfig, kv_cache_manager: KVCacheManager, *, pace: PrefillPace) -> None:
        kv_cache_manager.check_capacity(config.max_model_len, config.prefill_chunk_tokens)
        self.config = config
        self.num_preemptions = 0
        self.num_prefix_query_tokens = 0
        self.num_prefix_hit_tokens = 0
        self.num_drafts = 0
        self.num_draft_tokens = 0
        self.num_accepted_draft_tokens = 0
        self.pace = pace
        self._kv = kv_cache_manager
        self._waiting = WaitingRanks()
        self._small_steps = config.in_small_steps()
        self._running = RunningQueue()
        self._newest_seq_id = -1
        self._planner = StepPlanner()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def kv_cache_usage(self) -> float:
        return self._kv.usage

    @property
    def num_used_blocks(self) -> BlockCounts:
        return self._kv.num_used

    def shrink_cache(self) -> EmptyBlocks:
        """Forget all but the latest prefixes, and tell which blocks hold nothing then."""
        return self._kv.shrink()

    def take_copies(self) -> list[BlockCopy]:
        """What must be copied, in this order, before the batch that was scheduled last is run."""
        return self._kv.take_copies()

    def add(self, seq: Sequence) -> None:
        """Put a sequence at the end of its caller's line; ``RequestError`` if its prompt leaves no room."""
        assert seq.seq_id > self._newest_seq_id, "seq_id grows with arrival"
        check_length(seq.num_prompt_tokens, seq.params, max_model_len=self.config.max_model_len)
        self._newest_seq_id = seq.seq_id
        self._waiting.of(seq).add(seq)

    def abort(self, sequences: abc.Iterable[Sequence]) -> None:
        """End what is left of them, in whatever phase each is."""
        for seq in sequences:
            if not seq.is_finished:
                self.finish(seq)

    def finish(self, seq: Sequence, *, num_surplus_tokens: int = 0) -> None:
        """The end of every sequence: end of text, stop string, length, abort, failure. Its blocks
        are free at once.

        ``num_surplus_tokens`` of its last step's tokens come after what ended it, and are
        forgotten. Also allowed between ``schedule`` and ``update``, which is then not called for
        it.
        """
        assert not seq.is_finished, f"sequence {seq.seq_id} ends twice"
        del seq.token_ids[seq.num_tokens - num_surplus_tokens :]
        if seq.status is SequenceStatus.RUNNING:
            self._running.remove(seq)
        else:
            self._waiting.of(seq).discard(seq)
        self._kv.free(seq)
        seq.end()

    def schedule(self, failures: StepFailures) -> Batch:
        """Choose the work of the next step; empty only if there is none.

        Takes blocks but computes nothing: a batch that was never run may be forgotten, and the next
        call plans again. A sequence for which guessing fails is scheduled without guesses.
        """
        for seq in self._running:
            self._kv.release_surplus(seq)
        self._admit(self._queue_in_turn(), failures)
        batch = self._plan_and_place(self.pace.share)
        if not batch.scheduled:  # all was for decodes, which lack memory
            batch = self._plan_and_place(lambda _: self.pace.share(0))
        if all(seq.decodes for seq in self._running):
            batch = with_drafts(batch, self.config, self._kv, failures)
        return with_masks(batch, failures)

    def _queue_in_turn(self) -> WaitingQueue:
        """Of those that may run in this step; all others leave their seats."""
        giving_way = [seq for seq in self._running if seq.caller.gives_way]
        if not self._waiting.others and len(giving_way) == len(self._running):
            return self._waiting.giving_way
        for seq in giving_way:
            self._put_back(seq)
        return self._waiting.others

    def _admit(self, waiting: WaitingQueue, failures: StepFailures) -> None:
        for seq in waiting.next_in_turn(self.config.max_num_seqs - len(self._running)):
            with failures.of(seq.request_id):
                if seq.waits_for_leader:
                    continue
                hit = self._kv.find_prefix(seq)
                if not self._kv.has_room_for(seq, hit, running=list(self._running)):
                    break
                self._kv.attach(seq, hit)
                self._start(seq, hit.num_tokens)

    def _start(self, seq: Sequence, num_cached_tokens: int) -> None:
        is_new = seq.status is SequenceStatus.WAITING
        if is_new:
            seq.begin()  # it still waits if this fails
        self._waiting.of(seq).admit(seq)
        self._running.admit(seq)
        if is_new:  # not when it comes back: those tokens were its own
            seq.num_cached_tokens = num_cached_tokens
            if seq.index == 0:  # siblings always hit: counting them would only hide how well requests share
                self.num_prefix_query_tokens += seq.num_tokens
                self.num_prefix_hit_tokens += num_cached_tokens

    def _plan_and_place(self, share_beside: abc.Callable[[int], PrefillShare]) -> Batch:
        """Give the planned tokens their blocks, oldest sequence first."""
        config = self._small_steps if self._running.all_give_way else self.config
        plan = self._planner.plan(self._running, config, share_beside=share_beside)
        scheduled = []
        for seq in list(self._running):
            if seq.status is SequenceStatus.RUNNING:  # not preempted for an older one just now
                num_tokens = self._make_room(seq, plan[seq])
                if num_tokens > 0:
                    scheduled.append(ScheduledSequence(seq, num_tokens))
        return Batch(tuple(scheduled))

    def _make_room(self, seq: Sequence, num_tokens: int) -> int:
        """Allocate, if need be at the cost of younger ones; the youngest makes do with the rest."""
        while not self._kv.allocate(seq, num_tokens):
            if self._running.youngest is seq:
                num_tokens = self._kv.num_tokens_with_room(seq)
            else:
                self._preempt(self._running.youngest)
        return num_tokens

    def _preempt(self, seq: Sequence) -> None:
        self._put_back(seq)
        self.num_preemptions += 1

    def _put_back(self, seq: Sequence) -> None:
        self._running.remove(seq)
        self._kv.free(seq)
        seq.status = SequenceStatus.PREEMPTED
        self._waiting.of(seq).put_back(seq)

    def update(self, item: ScheduledSequence, token_ids: abc.Sequence[int]) -> None:
        """Take in what a step that ran brought one of its sequences: one or more tokens if it
        samples.

        All of them but the last were drafts. The caller ends those that end; all others must be
        able to go on.
        """
        seq = item.seq
        assert not seq.is_finished
        num_drafts, num_accepted = len(item.draft_token_ids), max(0, len(token_ids) - 1)
        seq.lookup.settle(num_drafts=num_drafts, num_accepted=num_accepted)
        self.num_drafts += num_drafts > 0
        self.num_draft_tokens += num_drafts
        self.num_accepted_draft_tokens += num_accepted
        seq.num_accepted_draft_tokens += num_accepted
        seq.token_ids += token_ids
        self._kv.mark_computed(seq, item.num_scheduled_tokens + num_accepted)
        if token_ids:
            seq.follow_grammar(token_ids)

    def check_integrity(self) -> None:
        """Assert every invariant of queues and memory that must hold between two calls."""
        assert len(self._running) <= self.config.max_num_seqs
        self._running.check_integrity()
        self._waiting.check_integrity()
        for seq in self._waiting:
            assert seq.status in (SequenceStatus.WAITING, SequenceStatus.PREEMPTED)
            assert seq.num_computed_tokens == 0
        for seq in self._running:
            assert seq.num_tokens <= seq.max_num_tokens <= self.config.max_model_len
        self._kv.check_integrity(list(self._running))
