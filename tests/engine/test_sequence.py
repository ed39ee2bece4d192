"""The small arithmetic of a sequence and of a batch."""

from engine.sampling_params import SamplingParams
from engine.sequence import Batch, ScheduledSequence, SequenceStatus, new_sequences


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


def test_a_batch_counts_and_leaves_one_out() -> None:
    first, second = new_sequences("r", [1] * 10, params=SamplingParams(n=2), first_seq_id=0, max_model_len=99)
    batch = Batch((ScheduledSequence(first, 10), ScheduledSequence(second, 4)))
    assert (len(batch), batch.num_tokens) == (2, 14)
    assert [item.seq for item in batch.sampling] == [first]
    assert [item.seq for item in batch.without(first).scheduled] == [second]
    assert len(batch) == 2
