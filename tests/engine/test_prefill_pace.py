"""Streams beside long prompts, in simulated time: a machine is a function from a step to the
seconds it takes.
"""

import random
import statistics
from collections import abc
from dataclasses import dataclass, field

import pytest

from engine.batch import Batch
from engine.prefill_pace import MIN_TOKENS, STEPS_PER_ROUND, PrefillPace, Unpaced
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, new_sequences
from engine.step_failures import StepFailures
from tests.engine.fakes import Setup

CHUNK = 384
LONG = 30_000


@dataclass
class Machine:
    """In milliseconds: a step, each row that decodes, each token of prefill, and what each costs
    more at 10,000.

    The default is one on which a chunk costs as much as 10 to 20 decodes of 8 sequences. ``noise``
    is relative.
    """

    step_ms: float = 30.0
    row_ms: float = 7.0
    token_ms: float = 1.8
    shared_ms: float = 0.0  # less, where some decode and others prefill
    cold_ms: float = 0.0  # more of each step, once a prompt is computed
    more_at_10_000_ms: float = 0.9
    noise: float = 0.03
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    is_cold: bool = False

    def seconds(self, batch: Batch) -> float:
        num_decoding = sum(item.num_scheduled_tokens == 1 for item in batch.scheduled)
        self.is_cold |= num_decoding < len(batch.scheduled)
        ms = self.step_ms - (self.shared_ms if 0 < num_decoding < len(batch.scheduled) else 0)
        ms += self.cold_ms if self.is_cold else 0
        for item in batch.scheduled:
            if item.num_scheduled_tokens == 1:
                ms += self.row_ms
            else:
                position = item.start + item.num_scheduled_tokens / 2
                ms += item.num_scheduled_tokens * (self.token_ms + self.more_at_10_000_ms * position / 10_000)
        return ms * self.rng.uniform(1 - self.noise, 1 + self.noise) / 1_000


class Simulation:
    """A scheduler with memory for everybody, and the time that passes."""

    def __init__(self, machine: Machine | None = None, *, pace: PrefillPace | None = None) -> None:
        self.machine = machine or Machine()
        self.pace = PrefillPace() if pace is None else pace
        setup = Setup(
            max_num_seqs=40,
            max_num_batched_tokens=512,
            max_model_len=32_768,
            prefill_chunk_tokens=CHUNK,
            block_size=16,
            window=512,
            num_global=12_000,
            num_sliding=12_000,
            pace=self.pace,
        )
        self.scheduler = setup.scheduler(setup.kv_cache_manager())
        self.now_s = 0.0
        self.num_added = 0
        self.chunks: list[int] = []  # tokens of prefill, of each step
        self.gaps: list[float] = []  # seconds between two tokens of a stream
        self.last_s: dict[Sequence, float] = {}

    def add(self, prompt: abc.Sequence[int], max_tokens: int = 1) -> Sequence:
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        (seq,) = new_sequences(
            f"r{self.num_added}", prompt, params=params, first_seq_id=self.num_added, max_model_len=32_768
        )
        self.num_added += 1
        self.scheduler.add(seq)
        return seq

    def add_prompt(self, num_tokens: int) -> Sequence:
        return self.add([self.num_added * 50_000 + i for i in range(num_tokens)])

    def add_streams(self, num: int) -> list[Sequence]:
        streams = [self.add([self.num_added], max_tokens=20_000) for _ in range(num)]
        self.step()
        return streams

    def step(self) -> None:
        batch = self.scheduler.schedule(StepFailures())
        seconds = self.machine.seconds(batch)
        self.pace.observe(batch, seconds)
        self.now_s += seconds
        self.chunks.append(sum(item.num_scheduled_tokens for item in batch.scheduled if item.num_scheduled_tokens > 1))
        for item in batch.scheduled:
            self.scheduler.update(item, (7,) if item.samples else ())
            if item.samples:
                if item.seq in self.last_s:
                    self.gaps.append(self.now_s - self.last_s[item.seq])
                self.last_s[item.seq] = self.now_s
            if item.seq.has_reached_max_tokens:
                self.scheduler.finish(item.seq)

    def steps(self, num: int) -> None:
        for _ in range(num):
            self.step()

    def until_done(self, *prompts: Sequence) -> float:
        """The seconds until all have their token."""
        began_s = self.now_s
        self.gaps.clear()
        self.chunks.clear()
        while not all(seq.is_finished for seq in prompts):
            self.step()
        return self.now_s - began_s

    def undisturbed_s(self) -> float:
        self.gaps.clear()
        self.steps(50)
        return statistics.median(self.gaps)


def unpaced_s(machine: Machine, num_streams: int) -> float:
    simulation = Simulation(machine, pace=Unpaced())
    simulation.add_streams(num_streams)
    simulation.steps(20)
    return simulation.until_done(simulation.add_prompt(LONG))


def test_streams_are_compared_with_how_they_were_before_the_prompt() -> None:
    """A prompt drives the weights out of the caches: each step costs a fifth more, which is its doing, too."""
    machine = Machine()
    simulation = Simulation(machine)
    simulation.add_streams(8)
    machine.is_cold = False
    machine.cold_ms = 17.0
    usual_s = simulation.undisturbed_s()
    simulation.until_done(simulation.add_prompt(LONG))
    assert statistics.median(simulation.gaps) < 2.5 * usual_s
    assert max(simulation.gaps) < 5 * usual_s


def test_what_was_usual_does_not_stop_a_prompt_when_streams_have_grown() -> None:
    """Decodes that cost five times as much leave no time for it in so many times what was usual."""
    machine = Machine()
    simulation = Simulation(machine)
    simulation.add_streams(8)
    simulation.undisturbed_s()
    simulation.add_prompt(LONG)
    simulation.steps(20)
    machine.row_ms *= 8
    simulation.steps(10 * STEPS_PER_ROUND)
    assert statistics.mean(simulation.chunks[-STEPS_PER_ROUND:]) > 100


def test_beside_a_long_prompt_streams_go_on() -> None:
    """The three bounds, where the parts of a step simply add up, which is the dearest way to share
    it.
    """
    simulation = Simulation()
    simulation.add_streams(8)
    usual_s = simulation.undisturbed_s()
    prompt_s = simulation.until_done(simulation.add_prompt(LONG))
    assert statistics.median(simulation.gaps) <= 2.5 * usual_s
    assert max(simulation.gaps) <= 5 * usual_s
    assert prompt_s <= 1.4 * unpaced_s(Machine(), 8)


def test_decodes_and_prefill_that_share_work() -> None:
    """As on a machine that reads the weights once for both: the prompt is ready sooner."""
    simulation = Simulation(Machine(shared_ms=20.0, noise=0.0))
    simulation.add_streams(8)
    usual_s = simulation.undisturbed_s()
    prompt_s = simulation.until_done(simulation.add_prompt(LONG))
    assert 2.25 * usual_s <= statistics.median(simulation.gaps) <= 2.5 * usual_s
    assert max(simulation.gaps) <= 5 * usual_s
    assert prompt_s <= 1.3 * unpaced_s(Machine(shared_ms=20.0), 8)


@pytest.mark.parametrize("num_streams", [1, 32])
def test_few_streams_and_many(num_streams: int) -> None:
    simulation = Simulation()
    simulation.add_streams(num_streams)
    usual_s = simulation.undisturbed_s()
    simulation.until_done(simulation.add_prompt(LONG))
    assert statistics.median(simulation.gaps) <= 2.5 * usual_s
    assert max(simulation.gaps) <= 5 * usual_s


def test_where_a_chunk_is_cheap_nothing_is_cut() -> None:
    """A machine that prefills 100 times as fast: whole chunks, but for the steps that measure a
    decode.
    """
    simulation = Simulation(Machine(token_ms=0.02, more_at_10_000_ms=0.01))
    simulation.until_done(simulation.add_prompt(1_000))
    simulation.add_streams(8)
    simulation.steps(20)
    simulation.until_done(simulation.add_prompt(LONG))
    num_cut = sum(chunk < CHUNK for chunk in simulation.chunks[:-1])
    assert num_cut <= len(simulation.chunks) // STEPS_PER_ROUND + 1


def test_while_nobody_decodes_nothing_is_cut() -> None:
    simulation = Simulation()
    simulation.until_done(simulation.add_prompt(2_000), simulation.add_prompt(2_000))
    assert simulation.chunks == [512] * 5 + [464, 384, 384, 208], "the last is alone at the end"


def test_those_who_come_together_are_not_kept_apart() -> None:
    """The first has its token when the others come: all decode together after one more step."""
    simulation = Simulation()
    simulation.until_done(*[simulation.add([i] * 32, max_tokens=64) for i in range(3)])
    first = simulation.add([100] * 32, max_tokens=64)
    simulation.step()
    others = [simulation.add([200 + i] * 32, max_tokens=64) for i in range(8)]
    simulation.step()
    assert first.num_output_tokens == 2
    assert [seq.num_output_tokens for seq in others] == [1] * 8
    simulation.step()
    late = [simulation.add([300 + i] * 32, max_tokens=64) for i in range(8)]
    simulation.step()
    assert min(seq.num_output_tokens for seq in late) == 0, "by now the first has a pace"


def test_the_first_steps_of_all() -> None:
    """Nothing is known: the first step beside a stream measures it, and prefill goes on all the
    same.
    """
    simulation = Simulation()
    long = simulation.add_prompt(4_000)
    stream = simulation.add([1, 2], max_tokens=2_000)
    simulation.until_done(long)
    assert stream.num_output_tokens > 10
    assert max(simulation.gaps) <= 5 * (simulation.machine.step_ms + simulation.machine.row_ms) / 1_000


def test_a_prompt_that_begins_deep_in_its_context() -> None:
    """20,000 of its tokens are cached; what a token costs there is learned from its first small
    chunks.
    """
    simulation = Simulation()
    first = simulation.add_prompt(20_000)
    simulation.until_done(first)
    for known in simulation.pace._token_s[False].values():
        for place in [place for place in known if place > 0]:
            del known[place]
    simulation.add_streams(8)
    usual_s = simulation.undisturbed_s()
    second = simulation.add([*first.token_ids[:20_000], *range(9_000)])
    simulation.until_done(second)
    assert second.num_cached_tokens > 19_000
    assert max(simulation.gaps) <= 5 * usual_s
    assert statistics.median(simulation.chunks) > 2 * MIN_TOKENS


@pytest.mark.parametrize("at_step", [0, 1, 2, STEPS_PER_ROUND - 1, STEPS_PER_ROUND])
def test_a_stopped_process_is_one_odd_step(at_step: int) -> None:
    """One step takes 5 s: the steps after it are as before."""
    simulation = Simulation()
    simulation.add_streams(8)
    usual_s = simulation.undisturbed_s()
    long = simulation.add_prompt(LONG)
    simulation.steps(at_step)
    simulation.machine.step_ms += 5_000
    simulation.step()
    simulation.machine.step_ms -= 5_000
    simulation.until_done(long)
    assert statistics.median(simulation.gaps) <= 2.5 * usual_s
    assert max(simulation.gaps) <= 5 * usual_s


def test_a_machine_that_slows_down_while_a_prompt_runs() -> None:
    simulation = Simulation()
    simulation.add_streams(8)
    long = simulation.add_prompt(LONG)
    simulation.steps(50)
    for name in ("step_ms", "row_ms", "token_ms", "more_at_10_000_ms"):
        setattr(simulation.machine, name, 3 * getattr(simulation.machine, name))
    simulation.steps(4 * STEPS_PER_ROUND)
    simulation.until_done(long)
    assert statistics.median(simulation.gaps) <= 2.5 * 3 * 86 / 1_000 * 1.1
    assert max(simulation.gaps) <= 5 * 3 * 86 / 1_000 * 1.05


def test_streams_come_and_go() -> None:
    """Gaps are measured in steps of as many decodes."""
    simulation = Simulation()
    streams = simulation.add_streams(8)
    simulation.steps(20)
    long = simulation.add_prompt(LONG)
    rng = random.Random(3)
    ratios = []
    while not long.is_finished:
        if rng.random() < 0.1:
            simulation.scheduler.finish(streams.pop(rng.randrange(len(streams))))
            streams += simulation.add_streams(rng.choice([0, 1, 2, 3]) if len(streams) < 16 else 0)
        if not streams:
            streams = simulation.add_streams(4)
        simulation.gaps.clear()
        simulation.step()
        usual_s = (simulation.machine.step_ms + simulation.machine.row_ms * len(streams)) / 1_000
        ratios += [gap / usual_s for gap in simulation.gaps]
    assert statistics.median(ratios) <= 2.6
    assert statistics.quantiles(ratios, n=100)[98] <= 5.5


def test_when_all_streams_but_one_leave() -> None:
    """A step of one decode has not been seen yet; one of 32 costs seven times as much."""
    simulation = Simulation(Machine(step_ms=5.0))
    streams = simulation.add_streams(32)
    simulation.steps(20)
    for seq in streams[1:]:
        simulation.scheduler.finish(seq)
    simulation.until_done(simulation.add_prompt(3_000))
    gaps = simulation.gaps.copy()
    assert max(gaps) <= 5.2 * simulation.undisturbed_s()


def test_long_prompts_follow_each_other_and_a_short_one_passes() -> None:
    """A short prompt behind two long ones has its token soon."""
    simulation = Simulation()
    simulation.add_streams(8)
    usual_s = simulation.undisturbed_s()
    longs = [simulation.add_prompt(LONG) for _ in range(2)]
    simulation.steps(100)
    short = simulation.add_prompt(300)
    assert simulation.until_done(short) < 45 * usual_s
    assert longs[1].num_computed_tokens < 0.1 * longs[0].num_computed_tokens
    simulation.until_done(*longs)
    assert statistics.median(simulation.gaps) <= 2.5 * usual_s
    assert max(simulation.gaps) <= 5 * usual_s


def test_prompt_logprobs_are_paced_by_their_own_cost() -> None:
    """The head is computed for each of their tokens: what other prompts cost says nothing of it."""
    simulation = Simulation()
    simulation.add_streams(8)
    simulation.until_done(simulation.add_prompt(2_000))
    usual_s = simulation.undisturbed_s()
    simulation.machine.token_ms *= 10
    params = SamplingParams(max_tokens=1, prompt_logprobs=1)
    (seq,) = new_sequences("logprobs", range(3_000), params=params, first_seq_id=10**6, max_model_len=32_768)
    simulation.scheduler.add(seq)
    simulation.until_done(seq)
    assert max(simulation.gaps) <= 5 * usual_s


def test_a_light_step_is_the_median_and_turns_change() -> None:
    assert STEPS_PER_ROUND % 2 == 0
    simulation = Simulation(Machine(noise=0.0))
    simulation.add_streams(8)
    simulation.steps(5)
    simulation.add_prompt(LONG)
    simulation.steps(2 * STEPS_PER_ROUND)
    chunks = simulation.chunks[-STEPS_PER_ROUND:]
    assert chunks.count(0) == 1
    usual_light = statistics.median(filter(None, chunks))
    num_heavy = sum(chunk > 1.3 * usual_light for chunk in chunks)
    assert 7 <= num_heavy < STEPS_PER_ROUND // 2, "one may be cut where its place was not seen yet"
