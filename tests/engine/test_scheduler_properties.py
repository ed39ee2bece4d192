"""Random workloads without weights: whatever arrives, is aborted or fails, and however little memory there is.

Each workload draws its own sizes, down to the smallest pools allowed, and its own requests. After every operation all
invariants are checked, and for every scheduled row that each key it attends to is in the right place
(``fakes.FakeRunner``).
"""

import math
import random
from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest

from engine import scheduler_config
from engine.batch import Batch
from engine.errors import RequestError
from engine.kv_cache_sizes import blocks_for_one_sequence
from engine.outputs import FinishReason
from engine.prefill_pace import PrefillPace, PrefillShare, Unpaced
from engine.scheduler import Scheduler
from engine.sequence import Sequence, SequenceStatus
from engine.step_failures import StepFailures
from tests.engine.fakes import FakeEngine, Setup, generate_alone, less

NUM_WORKLOADS = 10_000
NUM_SHARDS = 20
NUM_DEFAULT_SHARDS = 2  # the others are marked slow
SMALL_CHUNK_TOKENS = 4
SHARDS = [pytest.param(i, marks=[pytest.mark.slow] if i >= NUM_DEFAULT_SHARDS else []) for i in range(NUM_SHARDS)]


class MoodyPace(PrefillPace):
    """Whatever a clock could lead to: steps without prefill, with a token of it, with a little more, with all."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.only_decodes = False

    def share(self, num_decoding: int) -> PrefillShare:
        if num_decoding == 0:
            self.only_decodes = False  # short prompts beside streams that have just begun: nobody counts
            return super().share(0)
        self.only_decodes = not self.only_decodes and self.rng.random() < 0.2
        if self.only_decodes:
            return PrefillShare(self.token_s, 0.0, min_tokens=0)
        return PrefillShare(self.token_s, self.rng.choice([0.0, 1.5, 4.0, math.inf]), min_tokens=1)

    def token_s(self, seq: Sequence) -> float:
        return 1.0 + 0.1 * seq.num_computed_tokens


def random_setup(rng: random.Random) -> Setup:
    block_size = rng.choice([1, 2, 3, 4])
    window = rng.randint(1, 10)
    chunk = rng.choice([1, 2, 3, 5, 8])
    max_model_len = rng.choice([4, 12, 20, 20, 40])
    max_num_seqs = rng.randint(1, 5)
    for_one = blocks_for_one_sequence(max_model_len, block_size=block_size, window=window, prefill_chunk_tokens=chunk)
    is_roomy = rng.random() < 0.3
    return Setup(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_seqs + chunk + rng.choice([0, 0, 0, 1, 4, 20]),
        max_model_len=max_model_len,
        prefill_chunk_tokens=chunk,
        block_size=block_size,
        window=window,
        num_global=for_one.num_global * max_num_seqs if is_roomy else random_num_blocks(rng, for_one.num_global),
        num_sliding=for_one.num_sliding * max_num_seqs if is_roomy else random_num_blocks(rng, for_one.num_sliding),
        enable_prefix_caching=rng.random() < 0.7,
        max_draft_rows=rng.choice([0, 2, 6, 24, 100]),
        pace=MoodyPace(rng.randrange(1_000)) if rng.random() < 0.5 else Unpaced(),
    )


def random_num_blocks(rng: random.Random, smallest: int) -> int:
    return rng.choice([smallest, smallest, smallest + 1, smallest + 4, 2 * smallest])


def has_memory_for_all(setup: Setup) -> bool:
    for_one = blocks_for_one_sequence(
        setup.max_model_len,
        block_size=setup.block_size,
        window=setup.window,
        prefill_chunk_tokens=setup.prefill_chunk_tokens,
    )
    num_seqs = setup.max_num_seqs
    return setup.num_global >= num_seqs * for_one.num_global and setup.num_sliding >= num_seqs * for_one.num_sliding


class Workload:
    """One engine under random operations, with the promises of the scheduler's docstring checked at every step."""

    share_that_gives_way = 0.0

    def __init__(self, seed: int, seen: Counter[str]) -> None:
        self.rng = random.Random(seed)
        self.seen = seen
        self.setup = random_setup(self.rng)
        self.engine = FakeEngine(self.setup)
        self.has_ample_memory = has_memory_for_all(self.setup)
        self.shared_prompts = [self.random_tokens(self.setup.max_model_len) for _ in range(2)]
        self.num_turns_left: dict[Sequence, int] = {}
        self.num_passed_over = {"oldest": 0, "shortest": 0}
        self.num_admitted = 0
        self.passed_by: dict[Sequence, Counter[str]] = {}

    def random_tokens(self, num_tokens: int) -> list[int]:
        return [self.rng.randrange(3) for _ in range(num_tokens)]

    def run(self) -> None:
        for _ in range(self.rng.randint(2, 14)):
            operations = [self.add, self.add_many, self.abort, self.step, self.fail, self.engine.shrink]
            self.rng.choices(operations, [5, 1, 1, 10, 2, 1])[0]()
        while self.engine.has_work:
            self.step()
        self.engine.check_idle()
        self.check_outputs()
        self.seen["preemptions"] += self.engine.scheduler.num_preemptions
        self.seen["accepted drafts"] += self.engine.scheduler.num_accepted_draft_tokens
        self.seen["rejected drafts"] += (
            self.engine.scheduler.num_draft_tokens - self.engine.scheduler.num_accepted_draft_tokens
        )
        self.seen["hit tokens"] += self.engine.scheduler.num_prefix_hit_tokens

    def add(self) -> None:
        num_tokens = self.rng.randrange(self.setup.max_model_len)
        shared = self.rng.choice([*self.shared_prompts, self.random_tokens(num_tokens)])[:num_tokens]
        prompt = shared + self.random_tokens(self.rng.choice([0, 1, 1, 4]))
        max_tokens = self.rng.choice([None, 0, 1, 2, 5, 9])
        room = self.setup.max_model_len - len(prompt)
        try:
            self.engine.add(
                prompt,
                caller=self.rng.choice("aaabc"),
                gives_way=self.rng.random() < self.share_that_gives_way,
                n=self.rng.choice([1, 1, 1, 2, 4]),
                max_tokens=max_tokens,
                ignore_eos=self.rng.random() < 0.7,
                prompt_logprobs=self.rng.choice([None, None, None, 1]),
            )
        except RequestError:
            self.seen["refusals"] += 1
            assert not prompt or room < (0 if max_tokens == 0 else 1)
        else:
            assert room >= (0 if max_tokens == 0 else 1)

    def add_many(self) -> None:
        for _ in range(self.setup.max_num_seqs + 1):
            self.add()

    def abort(self) -> None:
        if self.engine.sequences:
            self.seen["aborts"] += 1
            self.engine.abort(self.rng.choice(self.engine.sequences).request_id)

    def fail(self) -> None:
        """A step that is never run, or run again without the one that broke it, or that one ends while it runs."""
        batch = self.engine.schedule()
        self.check_admission()
        self.forgive_a_turn()
        case = self.rng.choice(["forget", "retry later", "retry", "end meanwhile"])
        if not batch.scheduled or case == "forget":
            return
        self.seen["failures"] += 1
        culprit = self.rng.choice(batch.scheduled).seq
        if case == "end meanwhile":
            self.engine.complete(batch, end_meanwhile=culprit)
            return
        self.engine.finish(culprit, FinishReason.ABORT)
        if case == "retry":
            self.engine.complete(less(batch, culprit))

    def step(self) -> None:
        had_work = self.engine.has_work
        computed = {seq: seq.num_computed_tokens for seq in self.running()}
        num_preemptions = self.engine.scheduler.num_preemptions
        twin = self.twin_without_drafts() if self.rng.random() < 0.03 else None
        batch = self.engine.schedule()
        if twin is not None:
            self.check_drafts_cost_nobody(batch, twin)
        assert bool(batch.scheduled) == had_work
        for seq in self.running():
            assert computed.get(seq, seq.num_computed_tokens) == seq.num_computed_tokens, "schedule computed something"
        self.check_admission()
        self.check_bounds(batch)
        self.check_decodes(batch, num_preemptions)
        self.check_turns_of_prefill(batch)
        self.engine.complete(batch)

    def running(self) -> list[Sequence]:
        return list(self.engine.scheduler._running)

    def twin_without_drafts(self) -> Scheduler:
        shared = {id(seq.params): seq.params for seq in self.engine.sequences}
        twin = deepcopy(self.engine.scheduler, shared)
        twin.config = replace(twin.config, max_draft_rows=0)
        return twin

    def check_drafts_cost_nobody(self, batch: Batch, twin: Scheduler) -> None:
        """With drafts and without, the same sequences compute the same known tokens in this step, and the same give way."""
        expected = {item.seq.seq_id: item.num_scheduled_tokens for item in twin.schedule(StepFailures()).scheduled}
        assert {item.seq.seq_id: item.num_scheduled_tokens for item in batch.scheduled} == expected
        assert self.engine.scheduler.num_preemptions == twin.num_preemptions

    def check_admission(self) -> None:
        """No caller's line is jumped, but where a sibling lets others pass while it waits for its leader; and whoever is
        the first of its line sees at most one of each other caller go in before it.
        """
        waiting = [seq for seq in self.engine.scheduler._waiting if seq.status is SequenceStatus.WAITING]
        admitted = sorted(
            (seq for seq in self.engine.sequences if seq.age >= self.num_admitted), key=lambda seq: seq.age
        )
        self.num_admitted += len(admitted)
        for seq in waiting:
            for newcomer in admitted:
                if newcomer.caller.name == seq.caller.name:
                    assert seq.seq_id > newcomer.seq_id or seq.waits_for_leader, "a line was jumped"
        self.check_turns(admitted, waiting)

    def check_turns(self, admitted: list[Sequence], waiting: list[Sequence]) -> None:
        for seq in admitted:
            self.passed_by.pop(seq, None)
            for first, passed in self.passed_by.items():
                passed[seq.caller.name] += 1
                assert passed[seq.caller.name] == 1 or first.is_finished or first.waits_for_leader, (
                    "somebody had two turns"
                )
                self.seen["turns of others"] += 1
        firsts: dict[str, Sequence] = {}
        for seq in sorted(waiting, key=lambda seq: seq.seq_id):
            firsts.setdefault(seq.caller.name, seq)
        self.passed_by = {
            seq: self.passed_by.get(seq, Counter()) for seq in firsts.values() if not seq.waits_for_leader
        }

    def check_bounds(self, batch: Batch) -> None:
        assert batch.num_rows <= self.setup.max_num_batched_tokens
        num_decode_rows = sum(
            item.num_rows for item in batch.scheduled if item.samples and item.num_scheduled_tokens == 1
        )
        if any(item.draft_token_ids for item in batch.scheduled):
            assert num_decode_rows <= self.setup.max_draft_rows
        for item in batch.scheduled:
            assert 1 <= item.num_scheduled_tokens <= item.num_rows <= self.setup.prefill_chunk_tokens
            num_drafts = len(item.draft_token_ids)
            assert num_drafts == 0 or item.samples
            assert item.seq.num_tokens + num_drafts < item.seq.max_num_tokens or num_drafts == 0
            held = len(item.seq.sliding_table.block_ids)
            most = blocks_for_one_sequence(
                item.seq.num_tokens + num_drafts,
                block_size=self.setup.block_size,
                window=self.setup.window,
                prefill_chunk_tokens=self.setup.prefill_chunk_tokens,
            )
            assert held <= most.num_sliding
            assert len(item.seq.global_table.block_ids) <= most.num_global
            caches_nothing = item.seq.wants_prompt_logprobs or not self.setup.enable_prefix_caching
            assert not (caches_nothing and item.seq.index == 0 and item.seq.num_cached_tokens)

    def check_decodes(self, batch: Batch, num_preemptions: int) -> None:
        """All that decode are in the batch; only when memory ran out may the youngest of all be missing."""
        decoding = {seq for seq in self.running() if seq.num_uncomputed_tokens == 1}
        missing = decoding - {item.seq for item in batch.scheduled}
        if self.has_ample_memory:
            assert self.engine.scheduler.num_preemptions == num_preemptions
        if missing:
            self.seen["youngest without memory"] += 1
            assert not self.has_ample_memory
            assert missing == {self.running()[-1]}

    def check_turns_of_prefill(self, batch: Batch) -> None:
        """The bounds of the docstring: for everyone while memory suffices, for the oldest running always."""
        if isinstance(self.setup.pace, MoodyPace) and self.setup.pace.only_decodes:
            return
        prefills = [seq for seq in self.running() if not seq.decodes]
        if not self.has_ample_memory:
            prefills = [seq for seq in prefills if seq is self.running()[0]]
        if prefills:
            shortest = min(prefills, key=lambda seq: seq.num_uncomputed_tokens)
            self.check_turn(batch, "oldest", prefills[0])
            self.check_turn(batch, "shortest", shortest)
        self.check_turns_left(prefills)

    def check_turn(self, batch: Batch, whose: str, seq: Sequence) -> None:
        """One of any two turns brings it a whole chunk."""
        scheduled = {item.seq: item.num_scheduled_tokens for item in batch.scheduled}
        is_whole = scheduled.get(seq, 0) >= min(seq.num_uncomputed_tokens, self.chunk)
        self.num_passed_over[whose] = 0 if is_whole else self.num_passed_over[whose] + 1
        assert self.num_passed_over[whose] <= 1, f"the {whose} prompt was passed over twice in a row"

    def check_turns_left(self, prefills: list[Sequence]) -> None:
        """A prompt waits for at most twice the chunks that it and the older ones had left when it was admitted."""
        num_turns_left = {}
        num_chunks = 0
        for seq in prefills:
            num_chunks += -(-seq.num_uncomputed_tokens // self.chunk)
            num_turns = self.num_turns_left.get(seq, 2 * num_chunks)
            assert num_turns > 0, f"sequence {seq.seq_id} is not served in the promised number of turns"
            num_turns_left[seq] = num_turns - 1
        self.num_turns_left = num_turns_left

    def forgive_a_turn(self) -> None:
        """A step was planned that may never run: whose turn it was had nothing of it, and the next is another's."""
        self.num_turns_left = {seq: num + 2 for seq, num in self.num_turns_left.items()}
        self.num_passed_over = {"oldest": -1, "shortest": -1}

    @property
    def chunk(self) -> int:
        """A whole one, or the least that the pace may grant."""
        return 1 if isinstance(self.setup.pace, MoodyPace) else self.setup.prefill_chunk_tokens

    def check_outputs(self) -> None:
        for seq in self.engine.sequences:
            prompt = seq.token_ids[: seq.num_prompt_tokens]
            assert seq.output_token_ids == generate_alone(prompt, seq.index, seq.num_output_tokens)
            if self.engine.finish_reasons.get(seq.seq_id) is FinishReason.LENGTH:
                assert seq.num_tokens == seq.max_num_tokens


class WorkloadOfTwoRanks(Workload):
    """Some give way. The promises about turns are for those of one rank; here is what holds between the two."""

    share_that_gives_way = 0.6

    def step(self) -> None:
        scheduler = self.engine.scheduler
        has_right_of_way = any(not seq.caller.gives_way for seq in [*scheduler._waiting, *self.running()])
        had_work = self.engine.has_work
        batch = self.engine.schedule()
        assert bool(batch.scheduled) == had_work
        ranks = {item.seq.caller.gives_way for item in batch.scheduled}
        assert ranks <= {not has_right_of_way}, "somebody has not given way"
        if ranks == {True}:
            assert all(item.num_scheduled_tokens <= SMALL_CHUNK_TOKENS for item in batch.scheduled)
            self.seen["steps of those that give way"] += 1
        self.seen["steps of others"] += ranks == {False}
        self.check_bounds(batch)
        self.engine.complete(batch)

    def check_admission(self) -> None:
        """Nothing is promised to them all."""


@pytest.mark.parametrize("shard", SHARDS[:4])
def test_random_workloads_of_two_ranks(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_config, "SMALL_CHUNK_TOKENS", SMALL_CHUNK_TOKENS)
    seen: Counter[str] = Counter()
    for seed in range(shard, NUM_WORKLOADS // 2, NUM_SHARDS):
        try:
            WorkloadOfTwoRanks(seed, seen).run()
        except AssertionError as error:
            raise AssertionError(f"workload {seed}: {error}") from error
    for event in ("steps of those that give way", "steps of others", "preemptions", "hit tokens", "aborts", "failures"):
        assert seen[event] > 50, f"the workloads are too tame: {seen}"


@pytest.mark.parametrize("shard", SHARDS)
def test_random_workloads(shard: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(shard, NUM_WORKLOADS, NUM_SHARDS):
        try:
            Workload(seed, seen).run()
        except AssertionError as error:
            raise AssertionError(f"workload {seed}: {error}") from error
    events = "preemptions, hit tokens, refusals, aborts, failures, accepted drafts, rejected drafts, turns of others"
    for event in events.split(", "):
        assert seen[event] > 50, f"the workloads are too tame: {seen}"
    assert seen["youngest without memory"] > 0, f"the workloads are too tame: {seen}"
