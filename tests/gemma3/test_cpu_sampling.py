"""The native sampler: against the definition (``engine/sampling_params.py``) in double precision, and the torch one.

Rounding may decide a draw that falls on the edge between two tokens, and nothing else: a token is right if u times the sum lies
in its interval of the running sum, widened by ``EDGE``.
"""

import math
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.batch import SamplingRow
from engine.random_numbers import uniform
from engine.runners.torch_sampler import sample as torch_sample
from engine.sampling_params import SETTINGS as RANGES
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, new_sequences
from engine.token_mask import mask_of
from gemma3 import cpu

if (reason := cpu.why_unavailable()) is not None:
    pytest.skip(reason, allow_module_level=True)

from gemma3.cpu._native import RowRequest, Sampled
from gemma3.cpu._native import sample as native_sample

VOCAB = 2_000
FULL_VOCAB = 262_144
EDGE = 2e-6  # of the whole; float32 probabilities are no better
TORCH_EDGE = 1e-5  # torch divides the logits themselves by the temperature, which rounds more
END = 7

Logits = NDArray[np.float32]


def sample(logits: Logits, **settings: object) -> Sampled:
    """On a copy, since the core adjusts the logits where they are."""
    return native_sample(logits.copy(), request(**settings))


def request(*, num_logprobs: int = -1, target: int = -1, **settings: object) -> RowRequest:
    row = RowRequest(0, num_logprobs=num_logprobs, target=target)
    for name, value in settings.items():
        setattr(row, name, value)
    return row


def random_logits(rng: random.Random, vocab_size: int) -> Logits:
    """Flat or steep, and sometimes with a few tokens that stand out, as most rows of the model have."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    logits = numbers.standard_normal(vocab_size) * rng.choice((0.3, 3.0, 7.0)) - 6.0
    if rng.random() < 0.5:
        logits[numbers.integers(vocab_size, size=10)] += numbers.uniform(0, 25, 10)
    return logits.astype(np.float32)


def random_sequence(rng: random.Random, vocab_size: int) -> Sequence:
    params = SamplingParams(
        seed=rng.randrange(2**40),
        temperature=rng.choice((0.0, 0.3, 0.7, 1.0, 1.0, 2.0)),
        top_k=rng.choice((0, 0, 1, 5, 64, 1_500, vocab_size - 1, 2**31 - 1)),
        top_p=rng.choice((1.0, 1.0, 1e-9, 0.1, 0.9, 0.95, 0.9999)),
        min_p=rng.choice((0.0, 0.0, 0.05, 0.5)),
        frequency_penalty=rng.choice((0.0, 1.5)),
        presence_penalty=rng.choice((0.0, -1.0)),
        repetition_penalty=rng.choice((1.0, 1.3)),
        logit_bias=rng.choice(({}, {5: 4.0, 9: -100.0})),
        min_tokens=rng.choice((0, 16)),
        max_tokens=100,
        logprobs=rng.choice((None, 0, 3, 20)),
        allowed_token_ids=rng.choice(((), (), (), (END, *rng.sample(range(8, vocab_size), rng.choice((1, 3, 29)))))),
    )
    prompt = [rng.randrange(vocab_size) for _ in range(30)]
    seq = new_sequences(
        "r", prompt, params=params, first_seq_id=0, max_model_len=4_096, end_token_ids=frozenset({END})
    )[0]
    seq.token_ids += [rng.randrange(vocab_size) for _ in range(rng.randrange(20))]
    return seq


def native_row(seq: Sequence) -> RowRequest:
    """Everything is passed on, needed or not."""
    params, output = seq.params, seq.output_token_ids
    return request(
        **{name: getattr(params, name) for name, setting in RANGES.items() if setting.shapes_row},
        uniform=uniform(params.seed, seq.num_tokens, seq.index),
        seen=sorted(set(seq.token_ids)),
        output_counts=sorted(Counter(output).items()),
        logit_bias=list(params.logit_bias.items()),
        banned=[END] if len(output) < params.min_tokens else [],
        allowed=params.allowed_mask or b"",
        num_logprobs=-1 if params.logprobs is None else params.logprobs,
    )


def adjusted(logits: Logits, seq: Sequence) -> NDArray[np.float64]:
    """Steps 2 and 3."""
    params, output = seq.params, seq.output_token_ids
    values = logits.astype(np.float64)
    if len(output) < params.min_tokens:
        values[END] = -math.inf
    if params.allowed_token_ids:
        allowed = list(params.allowed_token_ids)
        values, kept = np.full_like(values, -math.inf), values[allowed]
        values[allowed] = kept
    seen = np.array(sorted(set(seq.token_ids)))
    old = values[seen]
    values[seen] = np.where(old > 0, old / params.repetition_penalty, old * params.repetition_penalty)
    for token_id in set(output):
        values[token_id] -= params.frequency_penalty * output.count(token_id) + params.presence_penalty
    for token_id, bias in params.logit_bias.items():
        values[token_id] += bias
    return values


@dataclass(frozen=True)
class Filters:
    """Steps 4 and 5 for a temperature above 0."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def probabilities(self, logits: NDArray[np.float64], slack: float = 0.0) -> NDArray[np.float64]:
        """Of the tokens that stay; thresholds are moved by ``slack``, to tell which tokens stay only by rounding."""
        order = np.argsort(-logits, kind="stable")[: self.top_k or None]
        weights = np.exp((logits[order] - logits[order[0]]) / self.temperature)
        before = np.cumsum(weights) - weights
        limit = self.top_p * (1 + slack) * weights.sum() if self.top_p < 1 else math.inf
        stays = before < limit
        stays[0] = True
        weights[~stays | (weights < self.min_p * (1 + slack))] = 0.0
        probs = np.zeros(len(logits))
        probs[order] = weights / weights.sum()
        return probs


def filters_of(params: SamplingParams) -> Filters:
    return Filters(params.temperature, params.top_k, float(np.float32(params.top_p)), params.min_p)


def is_right(filters: Filters, logits: NDArray[np.float64], u: float, token_id: int, edge: float) -> bool:
    """Step 6."""
    for slack in (0.0, edge, -edge):
        probs = filters.probabilities(logits, slack)
        before = probs[:token_id].sum()
        if probs[token_id] > 0 and before - edge <= u <= before + probs[token_id] + edge:
            return True
    return False


@pytest.mark.parametrize(("vocab_size", "trials"), [(37, 300), (VOCAB, 300), (70_001, 30), (FULL_VOCAB, 16)])
def test_equals_the_definition_and_the_torch_sample(vocab_size: int, trials: int) -> None:
    rng = random.Random(vocab_size)
    num_equal = 0
    for _ in range(trials):
        logits, seq = random_logits(rng, vocab_size), random_sequence(rng, vocab_size)
        ours = native_sample(logits.copy(), native_row(seq))
        (theirs,) = torch_sample(torch.tensor(logits)[None], [SamplingRow(seq)])
        assert ours.is_finite
        num_equal += ours.token_id == theirs.token_id
        if seq.params.temperature == 0:
            assert ours.token_id == theirs.token_id == adjusted(logits, seq).argmax()
        else:
            values, u = adjusted(logits, seq), uniform(seq.params.seed, seq.num_tokens, 0)
            assert is_right(filters_of(seq.params), values, u, ours.token_id, EDGE), seq.params
            assert is_right(filters_of(seq.params), values, u, theirs.token_id, TORCH_EDGE), seq.params
        if seq.params.logprobs is not None and ours.token_id == theirs.token_id:
            # Torch's float32 sum over the vocabulary is off by up to 2e-5; ours is held to 2e-6 below.
            assert ours.logprob == pytest.approx(theirs.logprob, abs=3e-5)
            assert ours.top == [(token_id, pytest.approx(logprob, abs=3e-5)) for token_id, logprob in theirs.top]
    assert num_equal >= 0.95 * trials


SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.0, "min_p": 0.02},
    {"temperature": 1.0, "top_k": 6},  # as many as there are blocks, or fewer: found by the blocks' maxima
    {"temperature": 1.5, "top_k": 300},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.2, "top_k": 500, "top_p": 0.95, "min_p": 0.001},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_evenly_spread_numbers_give_every_token_its_share(settings: dict[str, float]) -> None:
    """20,000 u's at equal distances: every token's count is its probability's share, but for the two ends of its interval."""
    num = 20_000
    logits = random_logits(random.Random(3), VOCAB)
    probs = Filters(**settings).probabilities(logits.astype(np.float64))
    chosen = [sample(logits, uniform=(i + 0.5) / num, **settings).token_id for i in range(num)]
    assert chosen == sorted(chosen)
    assert np.abs(np.bincount(chosen, minlength=VOCAB) - probs * num).max() < 1.01


def test_random_numbers_give_frequencies_that_fit() -> None:
    """Chi-square of 20,000 draws over the tokens expected at least 10 times, the others together: within 5 deviations."""
    num, logits = 20_000, random_logits(random.Random(4), VOCAB)
    chosen = [sample(logits, temperature=1.0, uniform=uniform(1, i, 0)).token_id for i in range(num)]
    counts, expected = np.bincount(chosen, minlength=VOCAB), num * Filters().probabilities(logits.astype(np.float64))
    often = expected >= 10
    counts = np.append(counts[often], counts[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    chi_square, freedom = float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1
    assert freedom > 20
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0, "num_logprobs": 20}], ids=str
)
def test_the_same_row_gives_the_same_bits(settings: dict[str, float]) -> None:
    """Wherever the row lies in memory."""
    logits = random_logits(random.Random(5), FULL_VOCAB)
    first = sample(logits, uniform=0.6, **settings)
    for shift in (1, 3, 16):
        moved = np.empty(FULL_VOCAB + shift, np.float32)[shift:]
        moved[:] = logits
        again = native_sample(moved, request(uniform=0.6, **settings))
        assert (again.token_id, again.logprob, again.top) == (first.token_id, first.logprob, first.top)


@pytest.mark.parametrize("vocab_size", [1, 2, 255, 256, 257, FULL_VOCAB])
@pytest.mark.parametrize(
    "settings", [{}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-45}], ids=str
)
def test_one_candidate_is_the_largest_logit(vocab_size: int, settings: dict[str, float]) -> None:
    """Odd sizes; on a tie, the lowest id."""
    logits = random_logits(random.Random(vocab_size), vocab_size)
    if vocab_size > 2:
        logits[[vocab_size // 3, vocab_size - 1]] = 30.0
    temperature = {"temperature": 2.0} if settings else {}
    assert sample(logits, uniform=0.3, **{**temperature, **settings}).token_id == logits.argmax()


@pytest.mark.parametrize("vocab_size", [100, 10_000, FULL_VOCAB])
@pytest.mark.parametrize("top_k", [5, 90])
def test_ties_stay_by_id(vocab_size: int, top_k: int) -> None:
    """All logits equal: what stays is a range of the lowest ids; 0 equals -0."""
    logits = np.zeros(vocab_size, np.float32)
    logits[::2] *= -1
    for u in (0.0, 0.5, 1 - 2**-53):
        assert sample(logits, temperature=1.0, top_k=top_k, uniform=u).token_id == int(u * top_k)
        half = sample(logits, temperature=1.0, top_p=0.5, uniform=u).token_id
        assert half == int(u * (vocab_size // 2))
        assert sample(logits, temperature=1.0, top_k=vocab_size - 1, uniform=u).token_id == int(u * (vocab_size - 1))
    assert [token_id for token_id, _ in sample(logits, num_logprobs=20).top] == list(range(20))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_ends_of_the_unit_interval(settings: dict[str, float]) -> None:
    """u = 0 gives the first token that stays, u = 1 (were it rounded up) the last; neither a banned one.

    First and last among those that have a weight at all: float32 ends at e^-87.
    """
    banned = [*range(300), *range(VOCAB - 300, VOCAB)]  # whole blocks and parts of others
    for seed in range(20):
        logits = random_logits(random.Random(seed), VOCAB)
        values = logits.astype(np.float64)
        values[banned] = -math.inf
        probs = Filters(**settings).probabilities(values)
        first, *last = (sample(logits, uniform=u, banned=banned, **settings).token_id for u in (0.0, 1 - 2**-53, 1.0))
        assert (probs[[first, *last]] > 0).all()
        assert probs[:first].sum() < 1e-15
        assert all(probs[token_id + 1 :].sum() < 1e-15 for token_id in last)


@pytest.mark.parametrize("settings", [{}, *SETTINGS], ids=str)
@pytest.mark.parametrize("vocab_size", [40, 5_000])
def test_only_what_is_left_is_chosen(settings: dict[str, float], vocab_size: int) -> None:
    """All but two tokens are -inf, as where a grammar allows little."""
    logits = np.full(vocab_size, -math.inf, np.float32)
    logits[[11, 35]] = 1.0, 0.9
    assert {sample(logits, uniform=u, **settings).token_id for u in (0.0, 0.1, 0.9)} <= {11, 35}


def extreme_logits(rng: random.Random, vocab_size: int) -> Logits:
    """Flat, or with the largest and smallest numbers there are, or with what is no number."""
    values = rng.choice(
        ((0.0,), (-1e-45, 0.0, 1e-45), (-3.4e38, 0.0, 3.4e38), (5.0, -math.inf), (-3.4e38,), (1.0, math.nan, math.inf))
    )
    return np.array(rng.choices(values, k=vocab_size), np.float32)


def extreme_params(rng: random.Random) -> SamplingParams:
    """Every number that shapes a row at the ends of its range: the least positive ones where 0 is not allowed."""
    chosen = {}
    for name, setting in RANGES.items():
        low = rng.choice((5e-324, 1e-300, 1e-45, 1e-38)) if setting.low == 0 and setting.kind is float else setting.low
        ends = [setting.default, low, setting.high, *([] if setting.open_low else [setting.low])]
        if setting.kind is float:
            ends.append(math.nextafter(setting.high, 0))
        chosen[name] = rng.choice(ends) if setting.shapes_row else setting.default
    return SamplingParams(**chosen | {"seed": rng.randrange(2**40)})


@pytest.mark.parametrize("num_allowed", [1, 2, 257, 1_024, VOCAB])
def test_a_row_of_few_allowed_ids_is_a_row_of_few_logits(num_allowed: int) -> None:
    """What is drawn from them is drawn as from a vocabulary that has no others; log probabilities are the whole row's."""
    rng = random.Random(num_allowed)
    for settings in ({}, *SETTINGS):
        logits = random_logits(rng, FULL_VOCAB if num_allowed == 257 else VOCAB)
        allowed = sorted(rng.sample(range(len(logits)), num_allowed))
        expected = torch.tensor(logits).double().log_softmax(-1).numpy()
        for u in (0.0, 0.31, 0.77, 1 - 2**-53):
            sampled = sample(logits, uniform=u, allowed=mask_of(allowed), num_logprobs=1, **settings)
            alone = sample(logits[allowed], uniform=u, **settings)
            assert sampled.token_id == allowed[alone.token_id]
            assert sampled.logprob == pytest.approx(expected[sampled.token_id], abs=2e-6)
            assert sampled.top[0][0] == logits.argmax()


def test_what_is_banned_among_the_allowed_cannot_be_chosen() -> None:
    logits = random_logits(random.Random(13), VOCAB)
    for settings in ({}, *SETTINGS):
        chosen = {
            sample(logits, uniform=u, allowed=mask_of([5, 9, 40]), banned=[9, 40], **settings).token_id
            for u in (0.0, 0.9)
        }
        assert chosen == {5}
    assert sample(logits, allowed=mask_of([5]), banned=[5]).token_id == -1


def test_penalties_and_biases_weigh_among_the_allowed() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[[5, 9]] = 2.0, 1.0
    allowed = mask_of([5, 9])
    assert sample(logits, allowed=allowed).token_id == 5
    assert sample(logits, allowed=allowed, repetition_penalty=4.0, seen=[5]).token_id == 9
    assert sample(logits, allowed=allowed, logit_bias=[(7, 100.0), (9, 1.5)]).token_id == 9


def test_reported_ids_take_the_place_of_the_likeliest() -> None:
    logits = random_logits(random.Random(14), VOCAB)
    expected = torch.tensor(logits).double().log_softmax(-1).numpy()
    wanted = [1_999, 0, 700]
    for changes in ({}, {"temperature": 0.3, "uniform": 0.5, "logit_bias": [(0, 9.0)], "banned": [700]}):
        sampled = sample(logits, num_logprobs=2, reported=wanted, **changes)
        assert [token_id for token_id, _ in sampled.top] == wanted
        assert [logprob for _, logprob in sampled.top] == pytest.approx(expected[wanted].tolist(), abs=2e-6)
    assert sample(logits, reported=wanted).top == [], "nobody asked for log probabilities"


def test_ranks_are_those_of_a_stable_sort() -> None:
    logits = random_logits(random.Random(15), VOCAB)
    logits[[3, 900, 901]] = logits[17]
    order = np.argsort(-logits, kind="stable").tolist()
    for rank, token_id in enumerate(order, 1):
        assert native_sample(logits.copy(), RowRequest(0, target=token_id, wants_rank=True)).rank == rank
    assert sample(logits, target=order[5]).rank == 0


@pytest.mark.parametrize("vocab_size", [1, 37, VOCAB])
def test_any_setting_and_any_logits_give_an_id_of_the_vocabulary(vocab_size: int) -> None:
    """Both samplers: a finite row has a choice, whatever a float32 makes of the settings."""
    rng = random.Random(vocab_size)
    for _ in range(400):
        logits, params = extreme_logits(rng, vocab_size), extreme_params(rng)
        prompt = [rng.randrange(vocab_size) for _ in range(5)]
        seq = new_sequences("r", prompt, params=params, first_seq_id=0, max_model_len=4_096)[0]
        seq.token_ids.append(rng.randrange(vocab_size))
        ours = native_sample(logits.copy(), native_row(seq))
        (theirs,) = torch_sample(torch.tensor(logits)[None], [SamplingRow(seq)])
        is_finite = not np.isnan(logits).any() and math.isfinite(logits.max())
        assert (ours.is_finite, theirs.is_finite) == (is_finite, is_finite), params
        assert 0 <= theirs.token_id < vocab_size
        assert 0 <= ours.token_id < vocab_size if is_finite else ours.token_id == -1, params


def test_a_mass_too_small_for_a_float32_keeps_the_likeliest() -> None:
    """As 0 it was no mass at all, and nothing stayed where no token is likelier than the others by far."""
    logits = np.zeros(FULL_VOCAB, np.float32)
    logits[4_711] = 0.5
    assert sample(logits, temperature=2.0, top_p=1e-300, uniform=0.7).token_id == 4_711


def test_a_penalty_too_small_for_a_float32_leaves_logits_finite() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[[3, 9]] = 1.0, 2.0
    sampled = sample(logits, repetition_penalty=1e-300, seen=[9, 3])
    assert (sampled.is_finite, sampled.token_id) == (True, 9)
    assert sample(np.full(VOCAB, 8.0, np.float32), repetition_penalty=1e-38, seen=[5]).token_id == 5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf], ids=str)
def test_rows_that_are_not_finite_are_told(bad: float, temperature: float) -> None:
    logits = random_logits(random.Random(7), VOCAB)
    for place in (0, 700, VOCAB - 1):
        broken = logits.copy()
        broken[place] = bad
        sampled = sample(broken, temperature=temperature, num_logprobs=3)
        assert (sampled.is_finite, sampled.token_id, sampled.top) == (False, -1, [])
        assert sample(broken, temperature=temperature, banned=[place]).is_finite
    assert not sample(np.full(VOCAB, -math.inf, np.float32), temperature=temperature).is_finite


def test_log_probabilities_are_of_the_model_itself() -> None:
    """Neither temperature nor penalties, bias or bans change what is reported; without a wish nothing is."""
    logits = random_logits(random.Random(8), FULL_VOCAB)
    expected = torch.tensor(logits).double().log_softmax(-1).numpy()
    changes = {
        "seen": [17],
        "repetition_penalty": 2.0,
        "logit_bias": [(17, 100.0)],
        "banned": [int(logits.argmax())],
    }
    sampled = sample(logits, temperature=0.5, top_k=3, num_logprobs=20, **changes)
    order = np.argsort(-logits, kind="stable")[:20].tolist()
    assert sampled.token_id == 17
    assert sampled.logprob == pytest.approx(expected[17], abs=2e-6)
    assert [token_id for token_id, _ in sampled.top] == order
    assert [logprob for _, logprob in sampled.top] == pytest.approx(expected[order].tolist(), abs=2e-6)
    silent = sample(logits, temperature=0.5, top_k=3, **changes)
    assert (silent.token_id, silent.logprob, silent.top) == (17, 0.0, [])


def test_log_probabilities_to_the_last_bits() -> None:
    """Two tokens at all distances: the polynomial of 2^x shows where the result is near 0."""
    for distance in np.linspace(0, 100, 1_001, dtype=np.float32):
        sampled = sample(np.array([0.0, -distance], np.float32), target=0)
        assert sampled.logprob == pytest.approx(-math.log1p(math.exp(-float(distance))), abs=1.2e-7, rel=2e-6)


def test_a_target_is_reported_and_nothing_is_chosen() -> None:
    logits = random_logits(random.Random(9), VOCAB)
    expected = torch.tensor(logits).double().log_softmax(-1).numpy()
    for target in (0, 999, VOCAB - 1):
        sampled = sample(logits, target=target, num_logprobs=2)
        assert (sampled.token_id, sampled.is_finite, len(sampled.top)) == (target, True, 2)
        assert sampled.logprob == pytest.approx(expected[target], abs=2e-6)
    assert len(sample(logits[:5], num_logprobs=20).top) == 5


@pytest.mark.parametrize(
    "settings",
    [{"seen": [-1]}, {"output_counts": [(VOCAB, 1)]}, {"logit_bias": [(2**31 - 1, 1.0)]}, {"banned": [VOCAB]},
     {"target": VOCAB}, {"allowed": mask_of([VOCAB])}, {"allowed": bytes(4 * (VOCAB // 32 + 2))}, {"allowed": bytes(5)},
     {"reported": [VOCAB]}],
    ids=lambda settings: str(settings)[:40],
)  # fmt: skip
def test_what_lies_outside_the_vocabulary_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        sample(np.zeros(VOCAB, np.float32), **settings)


def test_every_setting_that_shapes_a_row_is_an_attribute_of_it() -> None:
    """And at first has a value that changes nothing: the table's default, but for the temperature, which is greedy."""
    row = RowRequest(0)
    shaping = {name: setting for name, setting in RANGES.items() if setting.shapes_row}
    assert {name: getattr(row, name) for name in shaping} == {
        name: 0.0 if name == "temperature" else setting.default for name, setting in shaping.items()
    }
    for name, setting in shaping.items():
        setattr(row, name, setting.high)
        assert getattr(row, name) == setting.high
    with pytest.raises(AttributeError):
        row.not_a_setting = 1.0
