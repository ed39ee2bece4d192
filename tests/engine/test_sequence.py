"""The small arithmetic of a sequence, of a batch, and of drafts."""

import pytest

from engine.batch import Batch, ScheduledSequence
from engine.outputs import TokenLogprob
from engine.runners.model_runner import SampledToken, result_of
from engine.sampling_params import SamplingParams
from engine.sequence import SequenceStatus, new_sequences


def test_the_sequences_of_a_request() -> None:
    prompt = (5, 6, 7)
    params = SamplingParams(n=3, max_tokens=4, prompt_logprobs=1)
    sequences = new_sequences("r", prompt, params=params, first_seq_id=10, max_model_len=100)
    assert [seq.seq_id for seq in sequences] == [10, 11, 12]
    assert [seq.index for seq in sequences] == [0, 1, 2]
    assert [seq.leader for seq in sequences] == [None, sequences[0], sequences[0]]
    assert [seq.wants_prompt_logprobs for seq in sequences] == [True, False, False]
    assert all(seq.max_num_tokens == 7 and seq.token_ids == [5, 6, 7] for seq in sequences)
    sequences[0].token_ids.append(8)
    assert sequences[1].token_ids == [5, 6, 7], "each has its own tokens"


def test_without_max_tokens_the_context_is_the_limit() -> None:
    (seq,) = new_sequences("r", [1], params=SamplingParams(max_tokens=None), first_seq_id=0, max_model_len=100)
    assert seq.max_num_tokens == 100


def test_a_sequence_samples_when_no_known_token_is_left_to_compute() -> None:
    (seq,) = new_sequences("r", [1] * 10, params=SamplingParams(), first_seq_id=0, max_model_len=100)
    assert not ScheduledSequence(seq, 9).samples
    assert ScheduledSequence(seq, 10).samples
    seq.num_computed_tokens = 10
    seq.token_ids.append(2)
    item = ScheduledSequence(seq, 1)
    assert (item.start, item.end, item.samples) == (10, 11, True)
    assert (seq.num_uncomputed_tokens, seq.num_output_tokens, seq.output_token_ids) == (1, 1, [2])


def test_with_max_tokens_0_nothing_is_sampled() -> None:
    (seq,) = new_sequences("r", [1] * 10, params=SamplingParams(max_tokens=0), first_seq_id=0, max_model_len=100)
    assert seq.has_reached_max_tokens
    assert not ScheduledSequence(seq, 10).samples


def test_siblings_wait_until_the_prompt_is_computed_or_its_leader_ended() -> None:
    leader, sibling = new_sequences("r", [1] * 4, params=SamplingParams(n=2), first_seq_id=0, max_model_len=9)
    assert not leader.waits_for_leader
    leader.num_computed_tokens = 3
    assert sibling.waits_for_leader
    leader.num_computed_tokens = 4
    assert not sibling.waits_for_leader
    leader.num_computed_tokens, leader.status = 0, SequenceStatus.FINISHED
    assert not sibling.waits_for_leader


def test_siblings_that_wait_share_one_prompt() -> None:
    """64 of the longest context would otherwise take 16 MiB while they wait, and what they look up 10 times that."""
    leader, *siblings = new_sequences(
        "r", [1, 2, 3], params=SamplingParams(n=64), first_seq_id=0, max_model_len=9, prediction_token_ids=[2, 3, 4]
    )
    assert len({id(seq.token_ids) for seq in siblings}) == len({id(seq.lookup) for seq in siblings}) == 1
    for seq in (leader, *siblings[:2]):
        seq.begin()
    leader.token_ids.append(7)
    siblings[0].token_ids.append(8)
    assert [seq.token_ids for seq in (leader, *siblings[:3])] == [[1, 2, 3, 7], [1, 2, 3, 8], [1, 2, 3], [1, 2, 3]]
    for seq, last in ((leader, [7]), (siblings[0], [8]), (siblings[1], [])):
        seq.token_ids += [2, 3]
        assert seq.output_token_ids == [*last, 2, 3]
        assert seq.lookup.propose(8).token_ids[:1] == (4,), "the prediction is each one's"
    siblings[0].end()
    assert siblings[0].is_finished
    assert siblings[0].lookup.propose(8).token_ids == ()


def test_a_batch_counts_rows() -> None:
    first, second = new_sequences("r", [1] * 10, params=SamplingParams(n=2), first_seq_id=0, max_model_len=99)
    batch = Batch((ScheduledSequence(first, 10, (5, 6)), ScheduledSequence(second, 4)))
    assert (len(batch.scheduled), batch.num_rows) == (2, 16)
    assert [item.seq for item in batch.scheduled if item.samples] == [first]


def test_drafts_stand_behind_the_known_tokens() -> None:
    (seq,) = new_sequences("r", [1, 2, 3], params=SamplingParams(), first_seq_id=0, max_model_len=100)
    seq.num_computed_tokens = 3
    seq.token_ids.append(4)
    item = ScheduledSequence(seq, 1, (5, 6))
    assert (item.start, item.end, item.num_rows, item.row_token_ids) == (3, 4, 3, [4, 5, 6])
    rows = item.sampling_rows
    assert [row.num_tokens for row in rows] == [4, 5, 6]
    assert [row.num_output_tokens for row in rows] == [1, 2, 3]
    assert [row.output_token_ids for row in rows] == [[4], [4, 5], [4, 5, 6]]
    assert rows[2].token_ids == [1, 2, 3, 4, 5, 6]
    assert ScheduledSequence(seq, 0).sampling_rows == []


def sampled(*token_ids: int, not_finite: int | None = None) -> list[SampledToken]:
    return [SampledToken(token_id, i != not_finite, -1.0) for i, token_id in enumerate(token_ids)]


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [([5, 6, 7], [5, 6, 7]), ([5, 9, 7], [5, 9]), ([9, 6, 7], [9]), ([6, 5, 6], [6])],
    ids=str,
)
def test_what_a_step_keeps(chosen: list[int], kept: list[int]) -> None:
    """Drafts 5 and 6: the tokens up to and including the first that is not its draft."""
    (seq,) = new_sequences("r", [1], params=SamplingParams(logprobs=0), first_seq_id=0, max_model_len=100)
    result = result_of(ScheduledSequence(seq, 1, (5, 6)), sampled(*chosen))
    assert result.token_ids == tuple(kept)
    assert result.logprobs == tuple(TokenLogprob(token_id, -1.0) for token_id in kept)
    assert result.is_finite


@pytest.mark.parametrize(("not_finite", "kept"), [(0, ()), (1, (5,)), (2, (5, 6))])
def test_a_row_that_is_not_finite_is_left_to_the_step_that_computes_it_again(
    not_finite: int, kept: tuple[int, ...]
) -> None:
    (seq,) = new_sequences("r", [1], params=SamplingParams(), first_seq_id=0, max_model_len=100)
    result = result_of(ScheduledSequence(seq, 1, (5, 6)), sampled(5, 6, 7, not_finite=not_finite))
    assert result.token_ids == kept
    assert result.is_finite == bool(kept)
    assert result.logprobs is None


def test_prompt_targets_come_before_what_is_sampled() -> None:
    (seq,) = new_sequences("r", [1, 2, 3], params=SamplingParams(prompt_logprobs=0), first_seq_id=0, max_model_len=100)
    first = ScheduledSequence(seq, 2)
    assert (first.prompt_targets, first.num_answers) == ([2, 3], 2)
    assert result_of(first, sampled(2, 3)).prompt_logprobs == (TokenLogprob(2, -1.0), TokenLogprob(3, -1.0))
    seq.num_computed_tokens = 1
    last = ScheduledSequence(seq, 2, (7,))
    assert (last.prompt_targets, last.num_answers) == ([3], 3)
    result = result_of(last, sampled(3, 7, 8))
    assert (result.token_ids, result.prompt_logprobs) == ((7, 8), (TokenLogprob(3, -1.0),))
