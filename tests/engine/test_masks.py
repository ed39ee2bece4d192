"""Which ids a row may choose, as bits: the sets themselves, and both samplers on the same logits."""

import math
import random

import pytest
import torch

from engine.batch import SamplingRow
from engine.runners import torch_sampler
from engine.runners.model_runner import SampledToken
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, new_sequences
from engine.token_mask import intersection, mask_of
from gemma3 import cpu

VOCAB = 1_003
END = 7


def ids_of(mask: bytes) -> set[int]:
    return {i for i in range(8 * len(mask)) if mask[i // 8] >> i % 8 & 1}


def row_of(rng: random.Random, mask: bytes | None, **changes: object) -> SamplingRow:
    settings: dict[str, object] = {
        "seed": rng.randrange(2**40),
        "temperature": rng.choice((0.0, 0.0, 0.7, 1.0, 2.0)),
        "top_k": rng.choice((0, 0, 3, 700)),
        "top_p": rng.choice((1.0, 0.5, 0.95)),
        "min_p": rng.choice((0.0, 0.05)),
        "frequency_penalty": rng.choice((0.0, 1.5)),
        "repetition_penalty": rng.choice((1.0, 1.3)),
        "logit_bias": rng.choice(({}, {5: 4.0, 1_000: 9.0})),
        "logprobs": rng.choice((None, 0, 3)),
    }
    return SamplingRow(sequence(rng, **settings | changes), grammar_mask=mask)


def sequence(rng: random.Random, **settings: object) -> Sequence:
    params = SamplingParams(max_tokens=100, **settings)  # type: ignore[arg-type]
    prompt = [rng.randrange(VOCAB) for _ in range(20)]
    ends = frozenset({END})
    seq = new_sequences("r", prompt, params=params, first_seq_id=0, max_model_len=4_096, end_token_ids=ends)[0]
    seq.token_ids += [rng.randrange(VOCAB) for _ in range(9)]
    return seq


def masks(rng: random.Random) -> list[bytes]:
    whole = set(range(VOCAB))
    sets = [{rng.randrange(VOCAB)}, set(range(32, 48)), whole - set(rng.sample(range(VOCAB), 30)), whole]
    sets += [set(rng.sample(range(VOCAB), num)) for num in (5, VOCAB // 20, VOCAB // 2)]
    return [mask_of(each) for each in sets]


def test_a_set_of_ids_as_bits() -> None:
    assert mask_of([0, 33]) == bytes([1, 0, 0, 0, 2, 0, 0, 0])
    assert mask_of([]) == b""
    rng = random.Random(1)
    for _ in range(50):
        one, two = (set(rng.sample(range(400), rng.randrange(1, 300))) for _ in range(2))
        assert ids_of(mask_of(one)) == one
        assert len(mask_of(one)) % 4 == 0
        assert ids_of(intersection(mask_of(one), mask_of(two))) == one & two
    assert intersection(mask_of([3, 90]), mask_of([4])) == bytes(4)


def test_a_row_s_set_is_that_of_the_request_and_of_its_grammar() -> None:
    rng, grammar = random.Random(2), mask_of([3, 900])
    assert row_of(rng, None).allowed_mask is None
    assert row_of(rng, grammar).allowed_mask is grammar
    bound = row_of(rng, None, allowed_token_ids=(900, 4))
    assert bound.allowed_mask is bound.params.allowed_mask, "made once, not by the row"
    assert ids_of(bound.allowed_mask or b"") == {4, 900}
    assert ids_of(row_of(rng, grammar, allowed_token_ids=(900, 4)).allowed_mask or b"") == {900}


@pytest.mark.parametrize("trial", range(6))
def test_torch_chooses_as_if_the_other_logits_were_nothing(trial: int) -> None:
    """A set is a wish to add -inf to the others."""
    rng = random.Random(trial)
    for mask in masks(rng):
        row = row_of(rng, mask)
        logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(trial)) * 4
        (sampled,) = torch_sampler.sample(logits.clone(), [row])
        hidden = logits.clone()
        hidden[0, sorted(set(range(VOCAB)) - ids_of(mask))] = -math.inf
        (expected,) = torch_sampler.sample(hidden, [SamplingRow(row.seq)])
        assert sampled.token_id == expected.token_id
        assert sampled.token_id in ids_of(mask)
        if row.params.logprobs is not None:
            assert sampled.logprob == pytest.approx(float(logits[0].log_softmax(-1)[sampled.token_id]), abs=1e-5)


@pytest.mark.parametrize("trial", range(6))
def test_both_samplers_choose_alike(trial: int) -> None:
    """As the native runner asks; float32 may round one draw in many to the neighbour."""
    pytest.importorskip("gemma3.cpu._native", reason=cpu.why_unavailable() or "")
    from engine.runners.cpu_runner import _sampling_row
    from gemma3.cpu._native import sample

    rng = random.Random(100 + trial)
    rows = [row_of(rng, mask) for _ in range(6) for mask in masks(rng)]
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(trial)) * 4
    theirs = torch_sampler.sample(logits, rows)
    ours = [sample(logits[i].numpy().copy(), _sampling_row(row, 0)) for i, row in enumerate(rows)]
    assert sum(one.token_id == other.token_id for one, other in zip(ours, theirs, strict=True)) >= len(rows) - 1
    for row, one, other in zip(rows, ours, theirs, strict=True):
        assert one.token_id in ids_of(row.allowed_mask or b"")
        assert one.is_finite
        if row.params.logprobs is not None and one.token_id == other.token_id:
            assert one.logprob == pytest.approx(other.logprob, abs=3e-5)
            assert [i for i, _ in one.top] == [i for i, _ in other.top]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_is_allowed_both_say_so(temperature: float) -> None:
    rng, logits = random.Random(3), torch.zeros(1, VOCAB)
    rows = [
        row_of(rng, mask_of([4]), allowed_token_ids=(900,), temperature=temperature),
        row_of(rng, bytes(4 * (VOCAB // 32 + 1)), temperature=temperature),
        row_of(rng, mask_of([END]), min_tokens=50, temperature=temperature),
    ]
    for row in rows:
        assert not torch_sampler.sample(logits.clone(), [row])[0].is_finite
        if cpu.why_unavailable() is None:
            from engine.runners.cpu_runner import _sampling_row
            from gemma3.cpu._native import sample

            assert not sample(logits[0].numpy().copy(), _sampling_row(row, 0)).is_finite


def test_thousands_of_reported_ids_beside_a_target() -> None:
    """4,096 of them, in both: what a decision between many options asks of one row."""
    vocab_size, target = 10_000, 77
    logits = torch.randn(2, vocab_size, generator=torch.Generator().manual_seed(4)) * 4
    wanted = random.Random(4).sample(range(vocab_size), 4_096)
    expected = logits.double().log_softmax(-1)[0]
    told: list[SampledToken] = torch_sampler.token_logprobs(
        logits, torch.tensor([target, 5]), [torch_sampler.Asked(0, tuple(wanted)), torch_sampler.Asked(2)]
    )
    assert (told[0].token_id, len(told[1].top)) == (target, 2)
    answers = [(told[0].logprob, told[0].top)]
    if cpu.why_unavailable() is None:
        from gemma3.cpu._native import RowRequest, sample

        for num_logprobs in (-1, 0):
            row = RowRequest(0, target=target, num_logprobs=num_logprobs)
            row.reported = wanted
            one = sample(logits[0].numpy().copy(), row)
            assert one.token_id == target
            answers.append((one.logprob, tuple(one.top)))
    for logprob, top in answers:
        assert logprob == pytest.approx(float(expected[target]), abs=3e-5)
        assert [token_id for token_id, _ in top] == wanted
        assert [value for _, value in top] == pytest.approx(expected[wanted].tolist(), abs=3e-5)
