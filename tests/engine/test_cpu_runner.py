"""The native runner: what it asks of the core for each batch, and what it makes of the answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.batch import Batch, ScheduledSequence
from engine.block_pool import BlockTable
from engine.kv_cache_sizes import BlockCounts
from engine.outputs import TokenLogprob
from engine.random_numbers import uniform
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, new_sequences

pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")

from engine.runners import cpu_runner  # needs the core
from engine.runners.cpu_runner import CpuRunner
from engine.runners.model_runner import SequenceResult

ENDS = frozenset({1, 106})


class FakeRow:
    """Remembers whatever it is told beside its number."""

    def __init__(self, row: int, **settings: Any) -> None:
        self.__dict__ |= {"row": row} | {
            name: value for name, value in settings.items() if value != -1 and value is not False
        }

    @property
    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "row"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FakeRow) and self.__dict__ == other.__dict__

    __hash__ = None


@dataclass
class FakeSegment:
    start_position: int
    num_tokens: int
    global_blocks: list[int]
    sliding_blocks: list[int]
    first_sliding_block: int


@dataclass
class FakeSampled:
    token_id: int
    is_finite: bool = True
    logprob: float = -0.5
    top: list[tuple[int, float]] = field(default_factory=lambda: [(7, -0.5), (9, -1.5)])
    rank: int = 0


class FakeModel:
    """Remembers what it was asked, and answers with ``results``, or with the target or token 100 + row."""

    def __init__(self) -> None:
        self.results: list[FakeSampled] | None = None

    def allocate_kv(self, num_global_blocks: int, num_sliding_blocks: int) -> None:
        self.num_blocks = (num_global_blocks, num_sliding_blocks)

    def step(self, token_ids: list[int], segments: list[FakeSegment], rows: list[FakeRow]) -> list[FakeSampled]:
        self.token_ids, self.segments, self.rows = token_ids, segments, rows
        return self.results or [FakeSampled(row.settings.get("target", 100 + row.row)) for row in rows]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModel]:
    monkeypatch.setattr(cpu_runner, "RowRequest", FakeRow)
    monkeypatch.setattr(cpu_runner, "Segment", FakeSegment)
    return FakeModel()


@pytest.fixture
def runner(model: FakeModel) -> CpuRunner:
    return CpuRunner(model, BlockCounts(20, 10))  # type: ignore[arg-type]


def sequence(
    prompt: list[int], output: tuple[int, ...] = (), *, num_computed: int = 0, index: int = 0, **params: Any
) -> Sequence:
    settings = SamplingParams(**{"temperature": 0.0, "max_tokens": 100, "seed": 5, "n": index + 1} | params)
    seq = new_sequences(
        "r", prompt, params=settings, first_seq_id=len(prompt), max_model_len=1_000, end_token_ids=ENDS
    )[index]
    seq.token_ids += output
    seq.num_computed_tokens = num_computed
    seq.global_table, seq.sliding_table = BlockTable([3, 4]), BlockTable([6], first_block=1)
    return seq


def test_the_storage_is_made_once(runner: CpuRunner, model: FakeModel) -> None:
    assert model.num_blocks == (20, 10)


def test_a_ragged_batch(runner: CpuRunner, model: FakeModel) -> None:
    """A decoding sequence, a chunk of a prompt, and the end of another prompt."""
    decoding = sequence([2, 10, 11], (12,), num_computed=3)
    prefilling = sequence([2, 20, 21, 22, 23], num_computed=1)
    ending = sequence([2, 30], num_computed=0)
    batch = Batch((ScheduledSequence(decoding, 1), ScheduledSequence(prefilling, 2), ScheduledSequence(ending, 2)))
    results = runner.run(batch)
    assert model.token_ids == [12, 20, 21, 2, 30]
    assert model.segments == [
        FakeSegment(3, 1, [3, 4], [6], 1),
        FakeSegment(1, 2, [3, 4], [6], 1),
        FakeSegment(0, 2, [3, 4], [6], 1),
    ]
    assert model.rows == [FakeRow(0), FakeRow(4)]
    assert results == [SequenceResult((100,)), SequenceResult(), SequenceResult((104,))]


def row_of(runner: CpuRunner, model: FakeModel, seq: Sequence) -> Mapping[str, Any]:
    runner.run(Batch((ScheduledSequence(seq, seq.num_uncomputed_tokens),)))
    (row,) = model.rows
    return row.settings


def test_what_a_row_is_told(runner: CpuRunner, model: FakeModel) -> None:
    prompt, output = [2, 10, 11], (12, 10, 12)

    def told(**params: Any) -> Mapping[str, Any]:
        return row_of(runner, model, sequence(prompt, output, num_computed=5, **params))

    assert told() == {}
    drawn = {"temperature": 0.5, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "uniform": uniform(5, 6, 2)}
    assert told(index=2, temperature=0.5, top_k=5, top_p=0.5, min_p=0.1) == drawn
    seen = told(repetition_penalty=1.5)
    assert (seen["repetition_penalty"], sorted(seen["seen"])) == (1.5, [2, 10, 11, 12])
    assert told(frequency_penalty=0.5) == {"frequency_penalty": 0.5, "output_counts": [(12, 2), (10, 1)]}
    assert told(logit_bias={7: 1.5, 8: -100}) == {"logit_bias": [(7, 1.5), (8, -100)]}
    assert sorted(told(min_tokens=4)["banned"]) == [1, 106]
    assert told(min_tokens=3) == {}
    assert told(logprobs=0) == {"num_logprobs": 0}
    assert told(logprobs=2) == {"num_logprobs": 2}
    assert told(allowed_token_ids=(9, 7, 9)) == {"allowed": bytes([0x80, 2, 0, 0])}
    assert told(logprobs=0, logprob_token_ids=(9, 7, 9)) == {"num_logprobs": 0, "reported": (9, 7)}


def test_log_probabilities(runner: CpuRunner, model: FakeModel) -> None:
    seq = sequence([2, 10], logprobs=2)
    (result,) = runner.run(Batch((ScheduledSequence(seq, 2),)))
    assert result.logprobs == (TokenLogprob(101, -0.5, ((7, -0.5), (9, -1.5))),)


def test_prompt_log_probabilities_come_with_their_chunk(runner: CpuRunner, model: FakeModel) -> None:
    seq = sequence([2, 10, 11, 12], prompt_logprobs=2)
    (first,) = runner.run(Batch((ScheduledSequence(seq, 2),)))
    assert model.rows == [FakeRow(row, num_logprobs=2, target=target) for row, target in ((0, 10), (1, 11))]
    assert [entry.token_id for entry in first.prompt_logprobs] == [10, 11]
    assert not first.token_ids
    seq.num_computed_tokens = 2
    (last,) = runner.run(Batch((ScheduledSequence(seq, 2),)))
    assert model.rows == [FakeRow(0, num_logprobs=2, target=12), FakeRow(1)]
    assert [entry.token_id for entry in last.prompt_logprobs] == [12]
    assert last.token_ids == (101,)
    seq.token_ids.append(13)
    seq.num_computed_tokens = 4
    assert not runner.run(Batch((ScheduledSequence(seq, 1),)))[0].prompt_logprobs, "the prompt is over"


def test_ranks_are_asked_of_the_prompt_s_rows_alone(runner: CpuRunner, model: FakeModel) -> None:
    seq = sequence([2, 10, 11], prompt_logprobs=0, prompt_ranks=True, logprobs=1)
    model.results = [FakeSampled(10, rank=3), FakeSampled(11, rank=1), FakeSampled(5)]
    (result,) = runner.run(Batch((ScheduledSequence(seq, 3),)))
    assert ["wants_rank" in row.settings for row in model.rows] == [True, True, False]
    assert [entry.rank for entry in result.prompt_logprobs] == [3, 1]


def test_drafts_are_verified_in_the_same_step(runner: CpuRunner, model: FakeModel) -> None:
    """Rows after the last known token and after each draft; each sees the drafts before it as output."""
    seq = sequence([2, 10], (11,), num_computed=2, frequency_penalty=1.0, min_tokens=3, temperature=1.0)
    model.results = [FakeSampled(20), FakeSampled(21), FakeSampled(99), FakeSampled(98)]
    (result,) = runner.run(Batch((ScheduledSequence(seq, 1, (20, 21, 22)),)))
    assert model.token_ids == [11, 20, 21, 22]
    assert model.segments[0].num_tokens == 4
    assert [row.row for row in model.rows] == [0, 1, 2, 3]
    assert [row.settings["uniform"] for row in model.rows] == [uniform(5, position, 0) for position in (3, 4, 5, 6)]
    assert [row.settings["output_counts"] for row in model.rows[:2]] == [[(11, 1)], [(11, 1), (20, 1)]]
    assert ["banned" in row.settings for row in model.rows] == [True, True, False, False]
    assert result.token_ids == (20, 21, 99)


def test_logits_that_are_not_finite_fail_one_sequence(runner: CpuRunner, model: FakeModel) -> None:
    bad, good = sequence([2, 10]), sequence([2, 10, 11])
    model.results = [FakeSampled(0, is_finite=False), FakeSampled(5)]
    results = runner.run(Batch((ScheduledSequence(bad, 2), ScheduledSequence(good, 3))))
    assert results == [SequenceResult(is_finite=False), SequenceResult((5,))]
