"""What penalties need of a sequence is kept from step to step: always what counting anew would give."""

import random
from collections import Counter

import pytest

from engine.batch import SamplingRow
from engine.sampling_params import SamplingParams
from engine.sequence import new_sequences


@pytest.mark.parametrize("seed", range(5))
def test_equals_counting_anew(seed: int) -> None:
    """Tokens come one or more at a time, drafts come and go, one sibling begins later; some steps ask nothing."""
    rng = random.Random(seed)
    prompt = [rng.randrange(20) for _ in range(rng.randrange(1, 30))]
    sequences = new_sequences("r", prompt, params=SamplingParams(n=2, seed=1), first_seq_id=0, max_model_len=1_000)
    for step in range(60):
        for seq in sequences[: 1 if step < 10 else 2]:
            if step in (0, 10):
                seq.begin()
            seq.token_ids += [rng.randrange(30) for _ in range(rng.choice((1, 1, 4)))]
            for num_drafts in range(rng.choice((0, 1, 4))):
                row = SamplingRow(seq, tuple(rng.randrange(40) for _ in range(num_drafts)))
                assert sorted(row.seen_token_ids) == sorted(set(row.token_ids))
                assert sorted(row.output_counts) == sorted(Counter(row.output_token_ids).items())
