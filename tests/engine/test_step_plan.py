"""The order of prefill: in turn of arrival, short remainders first, and the bounds on how long a prompt waits.

Chunks of 16 tokens and a budget of 20, on a fake engine where a step is the only clock.
"""

import random

import pytest

from engine.batch import Batch
from engine.sequence import Sequence
from tests.engine.fakes import FakeEngine, Setup

CHUNK = 16


def new_engine(*, max_num_seqs: int = 4) -> FakeEngine:
    return FakeEngine(
        Setup(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=CHUNK + max_num_seqs,
            max_model_len=1_000,
            prefill_chunk_tokens=CHUNK,
            num_global=1_000,
            num_sliding=1_000,
        )
    )


def add(engine: FakeEngine, num_tokens: int, *, max_tokens: int = 1) -> Sequence:
    """No two prompts share a block."""
    rng = random.Random(len(engine.sequences))
    (seq,) = engine.add([rng.randrange(1_000) for _ in range(num_tokens)], max_tokens=max_tokens, ignore_eos=True)
    return seq


def amounts(batch: Batch) -> dict[int, int]:
    return {item.seq.seq_id: item.num_scheduled_tokens for item in batch.scheduled}


def num_steps_until_first_token(engine: FakeEngine, seq: Sequence) -> int:
    num_steps = 0
    while seq.num_output_tokens == 0:
        assert num_steps < 1_000
        engine.step()
        num_steps += 1
    return num_steps


def test_decodes_run_together_and_equal_prompts_one_after_the_other() -> None:
    """One whole chunk a step, what is left to the next; the last has not begun when the first is done."""
    engine = new_engine()
    for num_tokens in (1, 40, 40, 40):
        add(engine, num_tokens, max_tokens=4)
    steps = []
    for _ in range(6):
        batch = engine.schedule()
        steps.append(amounts(batch))
        engine.complete(batch)
    assert steps == [
        {0: 1, 1: 16, 2: 3},
        {0: 1, 1: 16, 2: 3},
        {0: 1, 1: 8, 2: 11},
        {0: 1, 1: 1, 2: 16, 3: 2},
        {1: 1, 2: 7, 3: 12},
        {1: 1, 2: 1, 3: 16},
    ]


def test_what_is_left_of_a_step_goes_to_the_shortest() -> None:
    engine = new_engine()
    for num_tokens in (60, 50, 40, 20):
        add(engine, num_tokens)
    batch = engine.schedule()
    assert amounts(batch) == {3: 16, 2: 4}
    engine.complete(batch)
    assert amounts(engine.schedule()) == {0: 16, 3: 4}, "the oldest was passed over"


@pytest.mark.parametrize("num_others", [0, 1, 2])
@pytest.mark.parametrize("num_steps", range(6))
def test_a_short_prompt_waits_for_one_chunk_of_a_long_one(num_steps: int, num_others: int) -> None:
    """Whenever it comes, and whoever had the turns before: 2 * ceil(16 / 16) steps; alone it takes 1."""
    engine = new_engine()
    add(engine, 900)
    for _ in range(num_others):
        engine.step()
        add(engine, CHUNK)
    for _ in range(num_steps):
        engine.step()
    while engine.scheduler.num_running + engine.scheduler.num_waiting > 1:  # none as short is left
        engine.step()
    assert num_steps_until_first_token(engine, add(engine, CHUNK)) <= 2


@pytest.mark.parametrize("num_chunks", [2, 3, 7])
def test_a_prompt_of_some_chunks_behind_a_long_one(num_chunks: int) -> None:
    engine = new_engine()
    add(engine, 900)
    for _ in range(3):
        engine.step()
    num_steps = num_steps_until_first_token(engine, add(engine, num_chunks * CHUNK))
    assert num_chunks <= num_steps <= 2 * num_chunks


def test_a_long_prompt_is_done_in_twice_its_steps_under_a_stream_of_short_ones() -> None:
    """2 * ceil(100 / 16) steps, though every seat beside it is always taken by a shorter one."""
    engine = new_engine()
    long = add(engine, 100)
    num_steps = 0
    while long.num_output_tokens == 0 and num_steps < 100:
        while engine.scheduler.num_waiting < 4:
            add(engine, CHUNK)
        engine.step()
        num_steps += 1
    assert 7 < num_steps <= 2 * 7
    assert sum(seq.is_finished for seq in engine.sequences) >= 7, "the others had their turns as well"


def test_later_ones_at_most_double_the_wait_of_a_prompt_between_the_long_and_the_short() -> None:
    """It is neither the oldest nor the shortest: 2 * (ceil(200 / 16) + ceil(60 / 16)) steps."""
    engine = new_engine()
    add(engine, 200)
    middle = add(engine, 60)
    num_steps = 0
    while middle.num_output_tokens == 0:
        assert num_steps < 2 * (13 + 4)
        while engine.scheduler.num_waiting < 4:
            add(engine, CHUNK)
        engine.step()
        num_steps += 1
    assert num_steps > 13, "the stream kept it waiting"
