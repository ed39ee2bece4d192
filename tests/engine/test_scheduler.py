"""Who runs when: seats, memory, siblings, ends. Each test is one small story on a fake engine."""

import random

import pytest

from engine.batch import Batch
from engine.errors import ContextLengthError, RequestError
from engine.kv_cache_sizes import BlockCounts, KVCacheLayout, num_blocks_for
from engine.outputs import FinishReason
from engine.scheduler_config import SchedulerConfig
from engine.sequence import Sequence, SequenceStatus
from tests.engine.fakes import FakeEngine, Setup, generate_alone, less


def prompt(num_tokens: int, seed: int = 0) -> list[int]:
    """No two seeds share a block."""
    rng = random.Random(seed)
    return [rng.randrange(1000) for _ in range(num_tokens)]


def amounts(batch: Batch) -> dict[int, int]:
    return {item.seq.seq_id: item.num_scheduled_tokens for item in batch.scheduled}


def add(engine: FakeEngine, num_tokens: int, *, max_tokens: int | None = 5, seed: int | None = None) -> Sequence:
    seed = len(engine.sequences) if seed is None else seed
    (seq,) = engine.add(prompt(num_tokens, seed), max_tokens=max_tokens, ignore_eos=True)
    return seq


def test_every_running_sequence_decodes_in_every_step_beside_a_long_prefill() -> None:
    engine = FakeEngine(Setup(max_num_seqs=8, max_num_batched_tokens=24, max_model_len=200, num_global=500))
    decoding = [add(engine, 1, max_tokens=20) for _ in range(7)]
    engine.step()
    add(engine, 180)
    for num_tokens in range(1, 12):
        assert [seq.num_output_tokens for seq in decoding] == [num_tokens] * 7
        engine.step()


def test_seats_are_given_in_order_of_arrival() -> None:
    engine = FakeEngine(Setup(max_num_seqs=2))
    sequences = [add(engine, 4, max_tokens=max_tokens) for max_tokens in (3, 1, 2, 1)]
    engine.step()
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (1, 2)
    engine.step()
    assert [seq.status for seq in sequences[2:]] == [SequenceStatus.RUNNING, SequenceStatus.WAITING]
    engine.run_until_idle()
    engine.check_idle()


def test_a_prompt_that_leaves_no_room_is_refused_in_the_words_that_clients_know() -> None:
    engine = FakeEngine(Setup(max_model_len=64))
    add(engine, 60, max_tokens=4)
    add(engine, 64, max_tokens=0)
    add(engine, 63, max_tokens=None)
    words = "This model's maximum context length is 64 tokens; the prompt is too long: it has 64 tokens"
    for max_tokens in (1, 500, None):
        with pytest.raises(ContextLengthError, match=words) as info:
            add(engine, 64, max_tokens=max_tokens)
        assert (info.value.code, info.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(RequestError, match="empty"):
        add(engine, 0)
    engine.run_until_idle()
    engine.check_idle()


def test_a_prompt_beyond_the_context_is_refused() -> None:
    engine = FakeEngine(Setup(max_model_len=64))
    for max_tokens in (None, 0, 5):
        with pytest.raises(ContextLengthError, match="it has 70 tokens"):
            add(engine, 70, max_tokens=max_tokens)


@pytest.mark.parametrize(("max_tokens", "room"), [(5, 4), (2**31 - 1, 4), (4, 4), (3, 3), (None, 4)])
def test_max_tokens_is_an_upper_bound_and_the_context_ends_the_answer(max_tokens: int | None, room: int) -> None:
    engine = FakeEngine(Setup(max_model_len=64))
    seq = add(engine, 60, max_tokens=max_tokens)
    assert seq.max_num_tokens == 60 + room
    engine.run_until_idle()
    assert (engine.finish_reasons[seq.seq_id], seq.num_output_tokens) == (FinishReason.LENGTH, room)
    engine.check_idle()


def test_max_tokens_0_computes_the_prompt_and_samples_nothing() -> None:
    engine = FakeEngine(Setup())
    seq = add(engine, 20, max_tokens=0)
    assert engine.step() == []
    (event,) = engine.step()
    assert (event.seq, event.token_ids) == (seq, ())
    assert (engine.finish_reasons[seq.seq_id], seq.num_output_tokens) == (FinishReason.LENGTH, 0)
    engine.check_idle()


def small_pool(num_global: int, *, num_sliding: int = 200, window: int = 8) -> Setup:
    return Setup(
        max_model_len=32, prefill_chunk_tokens=8, window=window, num_global=num_global, num_sliding=num_sliding
    )


def test_the_youngest_gives_way_and_says_the_same_later() -> None:
    """8 blocks of 4 tokens for three sequences that need 5 each."""
    engine = FakeEngine(small_pool(8))
    oldest, middle, youngest = (add(engine, 4, max_tokens=16) for _ in range(3))
    while engine.scheduler.num_preemptions == 0:
        engine.step()
    assert youngest.status is SequenceStatus.PREEMPTED
    assert (youngest.num_computed_tokens, youngest.global_table.block_ids) == (0, [])
    assert youngest.num_output_tokens > 0, "its output is kept"
    num_output_tokens = oldest.num_output_tokens
    engine.step()
    assert oldest.num_output_tokens == num_output_tokens + 1
    engine.run_until_idle()
    assert [len(seq.output_token_ids) for seq in (oldest, middle, youngest)] == [16, 16, 16]
    engine.check_idle()


def test_a_preempted_sequence_is_the_next_to_be_admitted() -> None:
    engine = FakeEngine(small_pool(8))
    for _ in range(5):
        add(engine, 4, max_tokens=16)
    while engine.scheduler.num_preemptions == 0:
        engine.step()
    first, second = engine.scheduler._waiting.others.next_in_turn(2)
    assert (first.status, second.status) == (SequenceStatus.PREEMPTED, SequenceStatus.WAITING)
    while second.status is SequenceStatus.WAITING:
        engine.step()
    assert first.status in (SequenceStatus.RUNNING, SequenceStatus.FINISHED)
    engine.run_until_idle()
    assert all(engine.finish_reasons[seq.seq_id] is FinishReason.LENGTH for seq in engine.sequences)


@pytest.mark.parametrize("scarce", ["global", "sliding"])
def test_the_smallest_memory_serves_everyone_one_after_the_other(scarce: str) -> None:
    """8 global blocks hold max_model_len tokens, 5 sliding blocks a window of 8 and a chunk of 8."""
    engine = FakeEngine(small_pool(8) if scarce == "global" else small_pool(200, num_sliding=5))
    for _ in range(12):
        add(engine, 16, max_tokens=16)
    engine.run_until_idle(max_steps=12 * 4 * (4 * 2 + 16))
    engine.check_idle()
    assert all(seq.num_output_tokens == 16 for seq in engine.sequences)


def test_a_prompt_is_not_admitted_while_the_memory_of_the_running_ones_is_spoken_for() -> None:
    """Two prompts of 6 blocks in a pool of 8: one at a time, nothing is computed twice."""
    engine = FakeEngine(small_pool(8))
    add(engine, 24, max_tokens=1)
    add(engine, 24, max_tokens=1)
    engine.step()
    assert engine.scheduler.num_running == 1
    engine.run_until_idle()
    assert engine.scheduler.num_preemptions == 0


def test_a_long_prompt_that_waits_for_memory_is_not_overtaken() -> None:
    engine = FakeEngine(small_pool(8))
    add(engine, 16, max_tokens=8)
    long, short = add(engine, 24, max_tokens=1), add(engine, 4, max_tokens=1)
    engine.step()
    assert (long.status, short.status) == (SequenceStatus.WAITING, SequenceStatus.WAITING)
    engine.run_until_idle()
    engine.check_idle()


def test_the_youngest_makes_do_with_the_memory_that_is_left() -> None:
    """6 sliding blocks: the oldest holds 3 for its window, the other 3 hold a window but no whole chunk beside it."""
    engine = FakeEngine(small_pool(200, num_sliding=6, window=9))
    oldest = add(engine, 12, max_tokens=20)
    for _ in range(3):
        engine.step()
    youngest = add(engine, 24, max_tokens=1)
    while not youngest.is_finished:
        engine.step()
    assert not oldest.is_finished
    assert engine.scheduler.num_preemptions == 0


def test_siblings_share_one_prefill() -> None:
    """42 tokens in blocks of 4: the siblings compute 2 each, in the step after the leader's prompt is done."""
    engine = FakeEngine(Setup(max_num_seqs=4))
    siblings = engine.add(prompt(42), n=4, max_tokens=5, ignore_eos=True)
    scheduled = []
    for _ in range(4):
        batch = engine.schedule()
        scheduled.append(amounts(batch))
        engine.complete(batch)
    assert scheduled == [{0: 16}, {0: 16}, {0: 10}, {0: 1, 1: 2, 2: 2, 3: 2}]
    assert engine.kv.num_used.num_global == 10 + 4 * 1
    assert engine.scheduler.num_prefix_hit_tokens == 0, "that is no hit of the request"
    engine.run_until_idle()
    assert len({tuple(seq.output_token_ids) for seq in siblings}) > 1
    engine.check_idle()


def test_waiting_siblings_keep_their_seats_and_let_others_pass() -> None:
    engine = FakeEngine(Setup(max_num_seqs=3))
    siblings = engine.add(prompt(42), n=2, max_tokens=5, ignore_eos=True)
    others = [add(engine, 4, max_tokens=30, seed=seed) for seed in (1, 2)]
    engine.step()
    assert [seq.status for seq in others] == [SequenceStatus.RUNNING, SequenceStatus.WAITING]
    for _ in range(3):
        engine.step()
    assert siblings[1].status is SequenceStatus.RUNNING


def test_siblings_of_a_leader_that_was_ended_go_on() -> None:
    engine = FakeEngine(Setup())
    leader, sibling = engine.add(prompt(42), n=2, max_tokens=5, ignore_eos=True)
    engine.step()
    engine.finish(leader, FinishReason.ABORT)
    engine.run_until_idle()
    assert engine.finish_reasons[sibling.seq_id] is FinishReason.LENGTH


def test_a_repeated_prompt_is_a_prefix_hit_and_counted() -> None:
    engine = FakeEngine(Setup())
    first = add(engine, 42, seed=1)
    engine.step()
    assert engine.scheduler.kv_cache_usage == 4 / 200
    engine.run_until_idle()
    assert engine.scheduler.kv_cache_usage == 0
    second = add(engine, 42, seed=1)
    engine.run_until_idle()
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 40)
    assert (engine.scheduler.num_prefix_query_tokens, engine.scheduler.num_prefix_hit_tokens) == (84, 40)
    assert first.output_token_ids == second.output_token_ids


def test_without_prefix_caching_requests_share_nothing_and_siblings_still_do() -> None:
    engine = FakeEngine(Setup(enable_prefix_caching=False))
    first = engine.add(prompt(42), n=2, max_tokens=2, ignore_eos=True)
    engine.run_until_idle()
    second = engine.add(prompt(42), n=2, max_tokens=2, ignore_eos=True)
    engine.run_until_idle()
    assert [seq.num_cached_tokens for seq in (*first, *second)] == [0, 40, 0, 40]


def test_prompt_logprobs_compute_the_whole_prompt_once() -> None:
    engine = FakeEngine(Setup())
    add(engine, 42, seed=0)
    engine.run_until_idle()
    sequences = engine.add(prompt(42), n=2, max_tokens=2, ignore_eos=True, prompt_logprobs=1)
    engine.run_until_idle()
    assert [seq.num_cached_tokens for seq in sequences] == [0, 40]


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3, 4, 9])
def test_abort_frees_the_blocks_at_once_in_every_phase(num_steps: int) -> None:
    engine = FakeEngine(Setup(max_num_seqs=2))
    sequences = engine.add(prompt(42), n=3, max_tokens=20, ignore_eos=True)
    for _ in range(num_steps):
        engine.step()
    engine.abort(sequences[0].request_id)
    engine.check_idle()
    engine.abort(sequences[0].request_id)  # of a request that is over nothing is left


# Every pair of the three tokens that can be sampled stands in this prompt, so there is always something to guess.
GUESSABLE = [0, 0, 1, 1, 2, 2, 0, 2, 1, 0] * 3


def drafts(batch: Batch) -> dict[int, int]:
    return {item.seq.seq_id: len(item.draft_token_ids) for item in batch.scheduled}


def drafting(**settings: object) -> FakeEngine:
    return FakeEngine(Setup(**{"max_draft_rows": 24, "max_model_len": 200, **settings}))  # type: ignore[arg-type]


def add_guessable(engine: FakeEngine, *, num_tokens: int = 20, max_tokens: int = 60) -> Sequence:
    (seq,) = engine.add(GUESSABLE[:num_tokens], max_tokens=max_tokens, ignore_eos=True)
    return seq


def test_only_those_that_decode_guess_and_say_what_they_would_say_anyway() -> None:
    engine = drafting()
    seq = add_guessable(engine)
    assert [drafts(engine.schedule()) for _ in range(2)] == [{0: 0}, {0: 0}]
    engine.run_until_idle()
    assert seq.output_token_ids == generate_alone(GUESSABLE[:20], 0, 60)
    scheduler = engine.scheduler
    assert 0 < scheduler.num_accepted_draft_tokens < scheduler.num_draft_tokens
    assert 0 < scheduler.num_drafts < scheduler.num_draft_tokens
    engine.check_idle()


def test_the_rows_for_drafts_are_shared() -> None:
    """10 rows of 3 sequences: 2 drafts for the first, and what it does not take the next may have."""
    engine = drafting(max_draft_rows=10, num_global=500)
    for _ in range(3):
        add_guessable(engine, num_tokens=16)
    engine.step()
    seen = []
    for _ in range(12):
        batch = engine.schedule()
        assert batch.num_rows <= 10
        seen.append(drafts(batch))
        engine.complete(batch)
    assert max(each[0] for each in seen) == 2
    assert max(each[2] for each in seen) > 2


def test_there_are_no_drafts_where_they_are_forbidden() -> None:
    engine = drafting(max_draft_rows=0)
    add_guessable(engine)
    engine.run_until_idle()
    assert engine.scheduler.num_draft_tokens == 0


def test_nobody_guesses_while_a_prompt_is_computed() -> None:
    engine = drafting(max_num_batched_tokens=20, num_global=500)
    add_guessable(engine, num_tokens=16)
    engine.step()
    add(engine, 150)
    seen = set()
    for _ in range(8):
        batch = engine.schedule()
        assert amounts(batch) == {0: 1, 1: 16}
        seen.add(drafts(batch)[0])
        engine.complete(batch)
    assert seen == {0}
    engine.run_until_idle()
    assert engine.scheduler.num_draft_tokens > 0


def test_the_blocks_of_wrong_drafts_are_free_for_the_next_step() -> None:
    engine = drafting(block_size=1)
    seq = add_guessable(engine)
    while engine.has_work:
        batch = engine.schedule()
        num_drafts = sum(drafts(batch).values())
        assert len(seq.global_table.block_ids) <= seq.num_tokens + num_drafts
        engine.complete(batch)
    assert engine.scheduler.num_draft_tokens > engine.scheduler.num_accepted_draft_tokens
    engine.check_idle()


def test_what_comes_after_the_end_is_forgotten() -> None:
    engine = drafting()
    seq = add_guessable(engine)
    while seq.num_output_tokens < 3:
        engine.step()
    said = seq.output_token_ids
    engine.finish(seq, FinishReason.STOP, num_surplus_tokens=2)
    assert seq.output_token_ids == said[:-2]
    engine.check_idle()


def test_a_failed_step_runs_again_without_the_culprit() -> None:
    engine = FakeEngine(Setup())
    first, culprit, third = (add(engine, 10) for _ in range(3))
    batch = engine.schedule()
    engine.finish(culprit, FinishReason.ABORT)
    events = engine.complete(less(batch, culprit))
    assert [event.seq for event in events] == [first, third]
    engine.run_until_idle()
    assert culprit.num_output_tokens == 0
    engine.check_idle()


def test_a_step_may_be_planned_again_when_it_never_ran() -> None:
    engine = FakeEngine(Setup(max_num_batched_tokens=20))
    for _ in range(3):
        add(engine, 30)
    for _ in range(5):
        engine.schedule()
    assert all(seq.num_computed_tokens == 0 for seq in engine.sequences)
    engine.run_until_idle()
    engine.check_idle()


def test_a_sequence_that_ended_while_its_step_ran_gets_nothing_from_it() -> None:
    engine = FakeEngine(Setup())
    first, ended = add(engine, 10), add(engine, 10)
    batch = engine.schedule()
    events = engine.complete(batch, end_meanwhile=ended)
    assert [event.seq for event in events] == [first]
    assert ended.num_output_tokens == 0
    engine.check()


def test_a_sequence_ends_once() -> None:
    engine = FakeEngine(Setup())
    seq = add(engine, 10)
    engine.finish(seq, FinishReason.STOP)
    with pytest.raises(AssertionError, match="ends twice"):
        engine.finish(seq, FinishReason.STOP)


def test_an_empty_scheduler_has_an_empty_batch() -> None:
    engine = FakeEngine(Setup())
    assert engine.schedule() == Batch()
    assert not engine.has_work


def test_bounds_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="max_num_batched_tokens=19 must be at least 20"):
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=19, max_model_len=64, prefill_chunk_tokens=16)
    with pytest.raises(ValueError, match="max_num_seqs=0"):
        SchedulerConfig(max_num_seqs=0, max_num_batched_tokens=19, max_model_len=64, prefill_chunk_tokens=16)
    with pytest.raises(ValueError, match="max_model_len=64 with prefill_chunk_tokens=16 needs"):
        FakeEngine(Setup(num_global=15))


def test_16_sequences_of_2000_tokens_run_at_once_in_the_blocks_of_1_gib() -> None:
    """2,000 tokens of prompt and output together, with the layers of Gemma 3 270M."""
    layout = KVCacheLayout(
        block_size=16, window=512, num_global_layers=3, num_sliding_layers=15, num_bytes_per_token=1024
    )
    counts = num_blocks_for(2**30, layout, max_num_seqs=16, max_model_len=32_768, prefill_chunk_tokens=384)
    setup = Setup(
        max_num_seqs=16,
        max_num_batched_tokens=2048,
        max_model_len=32_768,
        prefill_chunk_tokens=384,
        block_size=16,
        window=512,
        num_global=counts.num_global,
        num_sliding=counts.num_sliding,
    )
    engine = FakeEngine(setup)
    for _ in range(16):
        add(engine, 1_960, max_tokens=40)
    most_used = BlockCounts(0, 0)
    while engine.has_work:
        engine.step()
        most_used = max(most_used, engine.kv.num_used, key=lambda used: used.num_global)
    assert engine.scheduler.num_preemptions == 0
    assert most_used.num_global == 16 * 125
    engine.check_idle()
