"""The engine on a GPU: every greedy answer is the one of the CPU, and in a batch the one it is alone.

Skipped, with the reason, where torch sees no GPU. ``tests/gemma3/test_cuda.py`` does the same for the model.
"""

import random
from pathlib import Path

import pytest
import torch

from tests.engine.engines import load, run, same_until_unsure, tiny_checkpoint
from tests.engine.test_same_answer import answer_alone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
DEVICE = "cuda"


@pytest.mark.parametrize("reference", ["cpu", DEVICE])
def test_in_a_batch_and_after_prefix_hits(tmp_path: Path, reference: str) -> None:
    """Texts may part only where the two likeliest tokens are as good as equal."""
    path = tiny_checkpoint(tmp_path / "model")
    rng = random.Random(0)
    prompts = {f"{n}": [2, *(rng.randrange(107, 363) for _ in range(n))] for n in (1, 2, 15, 16, 17, 33, 100, 300)}
    expected = answer_alone(path, {"device": reference}, prompts)
    engine = load(path, device=DEVICE)
    for _ in range(2):
        answers = run(engine, prompts)
        for name, want in expected.items():
            assert same_until_unsure(want, answers[name][0]), name
    assert answers["300"][0].num_cached_tokens > 0
