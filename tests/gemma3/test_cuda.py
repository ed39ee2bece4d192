"""The torch path on a GPU beside the same on the CPU: the logits of float32, and what is left of them in bfloat16.

Skipped, with the reason, where torch sees no GPU. ``tests/engine/test_cuda.py`` does the same for the engine.
"""

import random
from pathlib import Path

import pytest
import torch

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.load import load_model
from gemma3.torch_model.model import Gemma3ForCausalLM
from tests.gemma3 import texts, tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
DEVICE = "cuda"


def logits(model: Gemma3ForCausalLM, token_ids: list[int], *, num_decoded: int = 8) -> torch.Tensor:
    """Of every position, on the CPU as float32: a prefill, and the last positions one by one through the cache."""
    cache = ContiguousKVCache(model.config)
    ids = torch.tensor(token_ids, device=model.model.embed_tokens.weight.device)
    steps = (ids[:-num_decoded], *ids[-num_decoded:].split(1))
    return model.compute_logits(torch.cat([model.step(step, cache) for step in steps])).float().cpu()


@pytest.mark.parametrize("seed", range(4))
@torch.inference_mode()
def test_float32_gives_the_logits_of_the_cpu(tmp_path: Path, seed: int) -> None:
    """Random shapes, more tokens than two windows."""
    rng = random.Random(seed)
    checkpoint = open_checkpoint(
        tiny.save_directory(tmp_path / "model", tiny.oracle_model(tiny.random_shape(rng), seed))
    )
    ids = [rng.randrange(tiny.VOCAB) for _ in range(60)]
    expected = logits(load_model(checkpoint, dtype="float32"), ids)
    got = logits(load_model(checkpoint, dtype="float32", device=DEVICE), ids)
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=1e-3)


@torch.inference_mode()
def test_bfloat16_stays_close_to_float32_on_the_cpu(embedded_gguf: Path) -> None:
    """The limits of ``test_real_model.py``: mean KL divergence at most 0.001, the same likeliest token for 98 %."""
    checkpoint = open_checkpoint(embedded_gguf)
    ids = checkpoint.load_tokenizer().encode(texts.MIXED * 2, add_bos=True)[:600]
    p = logits(load_model(checkpoint, dtype="float32"), ids).log_softmax(-1)
    q = logits(load_model(checkpoint, dtype="bfloat16", device=DEVICE), ids).log_softmax(-1)
    assert (p.exp() * (p - q)).sum(-1).mean() <= 1e-3
    assert (p.argmax(-1) == q.argmax(-1)).float().mean() >= 0.98
