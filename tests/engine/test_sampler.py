"""The torch sampler by invariants of its definition (``engine/sampling_params.py``)."""

import math
import random
from dataclasses import replace

import pytest
import torch

from engine.batch import SamplingRow
from engine.random_numbers import uniform
from engine.runners import torch_sampler
from engine.runners.model_runner import SampledToken
from engine.sampling_params import SamplingParams, SamplingParamsError
from engine.sequence import Sequence, new_sequences

VOCAB = 300
END = 7


def sequence(prompt: list[int] | None = None, output: list[int] | None = None, **params: object) -> Sequence:
    """A sequence that has sampled ``output`` already; seeded, as the engine makes all of them."""
    settings = SamplingParams(**{"seed": 1, **params})
    seq = new_sequences(
        "r", prompt or [2, 3], params=settings, first_seq_id=0, max_model_len=4_096, end_token_ids=frozenset({END})
    )[0]
    seq.token_ids += output or []
    return seq


def sample(logits: torch.Tensor, *seqs: Sequence) -> list[SampledToken]:
    return torch_sampler.sample(logits, [SamplingRow(seq) for seq in seqs])


def sample_ids(logits: torch.Tensor, *seqs: Sequence) -> list[int]:
    return [token.token_id for token in sample(logits, *seqs)]


def random_logits(num_rows: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * scale


def random_sequence(rng: random.Random) -> Sequence:
    output = [rng.randrange(VOCAB) for _ in range(rng.randrange(20))]
    return sequence(
        output=output,
        seed=rng.randrange(2**40),
        temperature=rng.choice((0.0, 0.3, 1.0, 2.0)),
        top_k=rng.choice((0, 1, 5, 50, VOCAB, 5_000)),
        top_p=rng.choice((0.1, 0.9, 1.0)),
        min_p=rng.choice((0.0, 0.05)),
        frequency_penalty=rng.choice((0.0, 1.5)),
        presence_penalty=rng.choice((0.0, -1.0)),
        repetition_penalty=rng.choice((1.0, 1.3)),
        logit_bias=rng.choice(({}, {5: 4.0, 9: -100.0})),
        min_tokens=rng.choice((0, 16)),
        logprobs=rng.choice((None, 0, 3)),
        allowed_token_ids=rng.choice(((), (), (5, END, 250), tuple(rng.sample(range(VOCAB), 40)))),
    )


def plain_probs(logits_V: torch.Tensor, seq: Sequence) -> list[float]:
    """Steps 2 to 5 of the definition for one row, in plain Python over double precision."""
    params, output = seq.params, seq.output_token_ids
    values = [float(x) for x in logits_V]
    if len(output) < params.min_tokens:
        values[END] = -math.inf
    if params.allowed_token_ids:
        values = [x if i in params.allowed_token_ids else -math.inf for i, x in enumerate(values)]
    for token_id in set(seq.token_ids):
        old = values[token_id]
        values[token_id] = old / params.repetition_penalty if old > 0 else old * params.repetition_penalty
    for token_id in set(output):
        values[token_id] -= params.frequency_penalty * output.count(token_id) + params.presence_penalty
    for token_id, bias in params.logit_bias.items():
        values[token_id] += bias
    ranked = sorted(range(VOCAB), key=lambda i: (-values[i], i))
    if params.temperature == 0:
        return [float(i == ranked[0]) for i in range(VOCAB)]
    kept = ranked[: params.top_k or VOCAB]
    weights = {i: math.exp((values[i] - values[ranked[0]]) / params.temperature) for i in kept}
    whole, before, probs = sum(weights.values()), 0.0, [0.0] * VOCAB
    for i in kept:
        if before < params.top_p and weights[i] >= params.min_p * weights[kept[0]]:
            probs[i] = weights[i]
        before += weights[i] / whole
    return [p / sum(probs) for p in probs]


def plain_pick(probs: list[float], seq: Sequence) -> int:
    """Step 6."""
    u, total = uniform(seq.params.seed, seq.num_tokens, seq.index), 0.0
    for token_id, p in enumerate(probs):
        total += p
        if total > u:
            return token_id
    return VOCAB - 1


def test_other_servers_words_for_all_tokens_and_for_the_likeliest() -> None:
    """-1 is all, as in vLLM; a mass of 0 is the likeliest token, whatever the temperature."""
    logits = random_logits(8)
    seqs = [sequence(seed=seed, temperature=2.0, top_p=0.0) for seed in range(8)]
    assert sample_ids(logits, *seqs) == logits.argmax(-1).tolist()
    assert SamplingParams(top_k=-1) == SamplingParams(top_k=0) == SamplingParams()
    for settings in ({"top_k": -2}, {"top_p": -0.01}):
        with pytest.raises(SamplingParamsError, match=next(iter(settings))):
            SamplingParams(**settings)


@pytest.mark.parametrize("trial", range(20))
def test_equals_the_plain_definition(trial: int) -> None:
    """25 rows of random settings in one call, against the definition written out one row at a time."""
    rng = random.Random(trial)
    seqs = [random_sequence(rng) for _ in range(25)]
    logits = random_logits(25, seed=trial)
    sampled = sample(logits, *seqs)
    num_equal = 0
    for row, seq in enumerate(seqs):
        probs = plain_probs(logits[row], seq)
        assert probs[sampled[row].token_id] > 0
        num_equal += sampled[row].token_id == plain_pick(probs, seq)
    assert num_equal >= 24, "float32 may round one draw in many to the neighbour"


def test_a_row_with_drafts_samples_as_if_they_were_output() -> None:
    """Penalties, the ban of end tokens and the random number take the drafts for said."""
    rng = random.Random(5)
    logits = random_logits(200, seed=5)
    rows, seqs = [], []
    for _ in range(200):
        seq = random_sequence(rng)
        drafts = tuple(rng.randrange(VOCAB) for _ in range(rng.randrange(6)))
        rows.append(SamplingRow(seq, drafts))
        seqs.append(replace(seq, token_ids=[*seq.token_ids, *drafts]))
    assert torch_sampler.sample(logits, rows) == sample(logits, *seqs)


@pytest.mark.parametrize("trial", range(10))
def test_neighbours_do_not_matter(trial: int) -> None:
    rng = random.Random(trial)
    seqs = [random_sequence(rng) for _ in range(16)]
    logits = random_logits(16, seed=trial)
    together = sample(logits, *seqs)
    for row, seq in enumerate(seqs):
        (alone,) = sample(logits[row : row + 1], seq)
        assert alone.token_id == together[row].token_id
        assert alone.logprob == pytest.approx(together[row].logprob)


def test_argmax_takes_the_lowest_id_on_a_tie() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, [40, 60, 200]] = 5.0
    assert sample_ids(logits, sequence(temperature=0.0)) == [40]


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}], ids=str)
def test_one_candidate_equals_greedy(settings: dict[str, float]) -> None:
    logits = random_logits(8)
    greedy = sample_ids(logits, *[sequence(temperature=0.0)] * 8)
    assert sample_ids(logits, *[sequence(temperature=2.0, **settings)] * 8) == greedy


def test_frequencies_follow_the_probabilities() -> None:
    """20,000 seeds: every token's frequency within 5 standard deviations of its probability."""
    logits = random_logits(1, scale=1.5)
    seqs = [sequence(seed=seed, temperature=0.8, top_p=0.95) for seed in range(20_000)]
    chosen = sample_ids(logits.expand(len(seqs), -1), *seqs)
    counts = torch.bincount(torch.tensor(chosen), minlength=VOCAB) / len(seqs)
    probs = torch.tensor(plain_probs(logits[0], seqs[0]))
    assert ((counts - probs).abs() <= 5 * (probs * (1 - probs) / len(seqs)).sqrt()).all()


def test_end_tokens_wait_for_min_tokens() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, END] = 50.0
    assert sample_ids(logits, sequence(temperature=1.0, min_tokens=2, output=[9])) != [END]
    assert sample_ids(logits, sequence(temperature=1.0, min_tokens=2, output=[9, 9])) == [END]


def test_logprobs_are_of_the_model_itself() -> None:
    """Neither temperature nor penalties nor bias change what is reported."""
    logits = random_logits(1)
    seq = sequence(temperature=0.1, logit_bias={17: 100.0}, presence_penalty=2.0, output=[1], logprobs=3)
    (sampled,) = sample(logits, seq)
    entry, expected = sampled, logits[0].log_softmax(-1)
    assert sampled.token_id == 17
    assert entry.logprob == pytest.approx(float(expected[17]))
    assert [i for i, _ in entry.top] == expected.topk(3).indices.tolist()
    assert [p for _, p in entry.top] == pytest.approx(expected.topk(3).values.tolist())


def test_ids_that_are_asked_for_take_the_place_of_the_likeliest() -> None:
    """In the request's order; a neighbour that asks for none keeps its likeliest ones."""
    logits = random_logits(2)
    wanted = sequence(temperature=0.0, logprobs=2, logprob_token_ids=(290, 4, 290), allowed_token_ids=(8,))
    asked, plain = sample(logits, wanted, sequence(temperature=0.0, logprobs=2))
    expected = logits.log_softmax(-1)
    assert asked.token_id == 8
    assert asked.logprob == pytest.approx(float(expected[0, 8]))
    assert asked.top == ((290, pytest.approx(float(expected[0, 290]))), (4, pytest.approx(float(expected[0, 4]))))
    assert [i for i, _ in plain.top] == expected[1].topk(2).indices.tolist()


def test_ranks_count_from_the_likeliest_and_ties_by_id() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, [40, 60]], logits[0, 9] = 5.0, -1.0
    asked = [torch_sampler.Asked(0, wants_rank=True)]
    ranks = {i: torch_sampler.token_logprobs(logits, torch.tensor([i]), asked)[0].rank for i in (40, 60, 0, 41, 299, 9)}
    assert ranks == {40: 1, 60: 2, 0: 3, 41: 3 + 41 - 2, 299: VOCAB - 1, 9: VOCAB}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_told(bad: float) -> None:
    logits = random_logits(3)
    logits[1, 4] = bad
    sampled = sample(logits, *[sequence(temperature=t) for t in (0.0, 0.0, 1.0)])
    assert [token.is_finite for token in sampled] == [True, False, True]


def test_uniform_numbers_are_uniform() -> None:
    """Means and neighbouring correlations of 30,000 numbers over seeds, positions and indices."""
    for numbers in (
        [uniform(i, 5, 0) for i in range(30_000)],
        [uniform(5, i, 0) for i in range(30_000)],
        [uniform(5, i // 8, i % 8) for i in range(30_000)],
    ):
        x = torch.tensor(numbers, dtype=torch.float64)
        assert 0 <= float(x.min()) < 1e-3
        assert 1 - 1e-3 < float(x.max()) < 1
        assert abs(float(x.mean()) - 0.5) < 0.01
        assert abs(float(((x[1:] - 0.5) * (x[:-1] - 0.5)).mean())) < 0.002
