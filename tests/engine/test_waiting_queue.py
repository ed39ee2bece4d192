"""Turns of callers in the queue, alone and through the scheduler."""

from engine.caller import Caller
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, SequenceStatus, new_sequences
from engine.waiting_queue import WaitingQueue
from tests.engine.fakes import FakeEngine, Setup


class Line:
    """A queue, and sequences whose names say whose they are: ``a0``, ``a1``, ``b0``."""

    def __init__(self, *names: str) -> None:
        self.queue = WaitingQueue()
        self.sequences: dict[str, Sequence] = {}
        self.add(*names)

    def add(self, *names: str) -> None:
        for name in names:
            (self.sequences[name],) = new_sequences(
                name,
                [1],
                params=SamplingParams(),
                first_seq_id=len(self.sequences),
                max_model_len=10,
                caller=Caller(name=name[0]),
            )
            self.queue.add(self.sequences[name])

    def next(self, num: int) -> list[str]:
        self.queue.check_integrity()
        return [seq.request_id for seq in self.queue.next_in_turn(num)]

    def admit(self, num: int) -> list[str]:
        """One by one."""
        admitted = []
        for _ in range(num):
            (name,) = self.next(1)
            self.queue.admit(self.sequences[name])
            admitted.append(name)
        return admitted


def test_one_of_each_caller_in_turn() -> None:
    line = Line("a0", "a1", "a2", "a3", "b0", "c0", "c1")
    assert line.next(100) == ["a0", "b0", "c0", "a1", "c1", "a2", "a3"]
    assert line.next(2) == ["a0", "b0"]
    assert line.next(0) == []
    assert line.admit(7) == line_of("a0 b0 c0 a1 c1 a2 a3")
    assert len(line.queue) == 0


def line_of(text: str) -> list[str]:
    return text.split()


def test_admitting_several_at_once_is_the_same_as_one_by_one() -> None:
    line, other = Line("a0", "a1", "b0", "b1", "c0"), Line("a0", "a1", "b0", "b1", "c0")
    for seq in line.queue.next_in_turn(4):
        line.queue.admit(seq)
    assert other.admit(4) == ["a0", "b0", "c0", "a1"]
    assert line.next(9) == other.next(9) == ["b1"]


def test_a_newcomer_waits_for_one_turn_of_each_other_caller() -> None:
    line = Line("a0", "a1", "a2", "b0", "b1", "b2")
    assert line.admit(1) == ["a0"]
    line.add("c0", "c1")
    assert line.admit(7) == line_of("b0 a1 c0 b1 a2 c1 b2")


def test_who_gives_up_takes_no_turn() -> None:
    line = Line("a0", "a1", "b0", "b1")
    line.queue.discard(line.sequences["a0"])
    assert line.next(9) == ["a1", "b0", "b1"]
    line.queue.discard(line.sequences["a1"])
    line.add("a2")
    assert line.next(9) == ["b0", "a2", "b1"]


def test_the_preempted_come_first_and_the_oldest_of_them_before() -> None:
    line = Line("a0", "b0", "b1")
    for age, name in enumerate(["b0", "a0"]):
        line.queue.admit(line.sequences[name])
        line.sequences[name].age = age
    for name in ("a0", "b0"):
        line.queue.put_back(line.sequences[name])
    assert (line.next(9), line.next(1), len(line.queue)) == (["b0", "a0", "b1"], ["b0"], 3)
    line.queue.discard(line.sequences["b0"])
    assert line.next(9) == ["a0", "b1"]


def test_a_preempted_one_that_comes_back_takes_no_turn() -> None:
    line = Line("a0", "a1", "b0", "b1")
    assert line.admit(2) == ["a0", "b0"]
    line.sequences["a0"].age = 0
    line.queue.put_back(line.sequences["a0"])
    assert line.admit(3) == ["a0", "a1", "b1"]


def add(engine: FakeEngine, caller: str, num_tokens: int = 4, max_tokens: int = 4) -> Sequence:
    prompt = [len(engine.sequences) * 100 + i for i in range(num_tokens)]
    (seq,) = engine.add(prompt, caller=caller, max_tokens=max_tokens, ignore_eos=True)
    return seq


def test_a_single_request_does_not_wait_behind_anothers_hundred() -> None:
    """4 seats: of the caller with 100 requests none but those that run already, and one more, come
    before it.
    """
    engine = FakeEngine(Setup(max_num_seqs=4))
    for _ in range(100):
        add(engine, "many")
    engine.step()
    single = add(engine, "single")
    while not single.is_finished:
        engine.step()
    assert sum(seq.is_finished for seq in engine.sequences) <= 2 * 4 + 1
    engine.run_until_idle()
    engine.check_idle()


def test_who_was_admitted_first_is_older_whenever_it_arrived() -> None:
    """8 blocks. An old request of one caller, admitted after the newcomer, must not take the
    newcomer's blocks.
    """
    engine = FakeEngine(Setup(max_num_seqs=2, max_model_len=32, prefill_chunk_tokens=8, num_global=8))
    first = add(engine, "many", max_tokens=2)
    waiting = [add(engine, "many", max_tokens=28) for _ in range(3)]
    newcomer = add(engine, "single", max_tokens=28)
    engine.step()
    assert [seq.status for seq in (first, newcomer)] == [SequenceStatus.RUNNING] * 2
    while not newcomer.is_finished:
        engine.step()
        assert newcomer.status is not SequenceStatus.PREEMPTED
    assert engine.scheduler.num_preemptions > 0
    assert any(seq.age > newcomer.age for seq in waiting)
    engine.run_until_idle()
    engine.check_idle()
