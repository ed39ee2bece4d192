"""The real weights: our forward against transformers', float32, and bfloat16 against float32.

The weights reach transformers through the ``gguf`` package's own dequantiser, so an error of our reader shows here too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor
from transformers import Gemma3ForCausalLM as OracleModel
from transformers import Gemma3TextConfig as OracleConfig

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.gguf_checkpoint import _model_name
from gemma3.config import Gemma3TextConfig
from gemma3.files.gguf import GGUFFile
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.torch_model.attention import Segment
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.load import load_model
from gemma3.torch_model.model import Gemma3ForCausalLM
from tests.gemma3 import texts

MARGIN = 1e-3


@dataclass(frozen=True)
class Real:
    oracle: OracleModel
    model: Gemma3ForCausalLM
    tokenizer: Gemma3Tokenizer


@pytest.fixture(scope="module")
def real(embedded_gguf: Path) -> Real:
    checkpoint = open_checkpoint(embedded_gguf)
    model = load_model(checkpoint, dtype="float32")
    return Real(oracle_from_gguf(embedded_gguf), model, checkpoint.load_tokenizer())


def oracle_from_gguf(path: Path) -> OracleModel:
    config = Gemma3TextConfig()
    shape = {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "intermediate_size", "head_dim")}
    shape |= {
        name: getattr(config, name) for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    }
    with torch.device("meta"):
        oracle = OracleModel(OracleConfig(**shape, sliding_window=512, query_pre_attn_scalar=256))
    tensors = {}
    file = GGUFFile.open(path)  # the package's own reader takes 20 s; the dequantiser is still its own
    for name, tensor in file.tensors.items():
        values = torch.tensor(dequantize(file.raw(name), GGMLQuantizationType(tensor.ggml_type))).reshape(tensor.shape)
        tensors[_model_name(name)] = values - 1.0 if values.ndim == 1 else values
    oracle.load_state_dict(tensors, strict=False, assign=True)
    oracle.tie_weights()
    fresh = OracleModel(OracleConfig(**shape | {"vocab_size": 8}, sliding_window=512, query_pre_attn_scalar=256))
    oracle.model.rotary_emb = fresh.model.rotary_emb
    oracle.model.embed_tokens.embed_scale = fresh.model.embed_tokens.embed_scale
    return oracle.eval().requires_grad_(False)


def prompts(tokenizer: Gemma3Tokenizer, lengths: tuple[int, ...]) -> list[list[int]]:
    """The seven short ones, and one of each length."""
    long_ids = tokenizer.encode(texts.MIXED * 12, add_bos=True)
    assert len(long_ids) >= max(lengths)
    short = [tokenizer.encode(text, add_bos=True) for text in texts.SHORT_PROMPTS]
    return short + [long_ids[:length] for length in lengths]


@dataclass(frozen=True)
class Continued:
    """An answer, and the hidden rows of prompt and answer as they were computed: one prefill, then a row a decode step."""

    answer: list[int]
    hidden: list[Tensor]


def greedy(model: Gemma3ForCausalLM, prompts: list[list[int]], num_new: int) -> list[Continued]:
    """Continue all prompts together: prefill one by one, then ragged decode steps."""
    caches = [ContiguousKVCache(model.config) for _ in prompts]
    prefills = [model.step(torch.tensor(ids), cache) for ids, cache in zip(prompts, caches, strict=True)]
    found = [Continued([], [rows]) for rows in prefills]
    segments = [Segment(i, i + 1, cache) for i, cache in enumerate(caches)]
    last = torch.cat([rows[-1:] for rows in prefills])
    for step in range(num_new):
        chosen = model.compute_logits(last).argmax(-1)
        for each, token_id in zip(found, chosen.tolist(), strict=True):
            each.answer.append(token_id)
        if step + 1 < num_new:
            last = model(chosen, torch.tensor([cache.num_tokens for cache in caches]), segments)
            for each, row in zip(found, last.split(1), strict=True):
                each.hidden.append(row)
    return found


def positions_to_compare(num_tokens: int, *, num_answer: int, stride: int) -> list[int]:
    """One of ``stride``, and all around the answer: every one of 6,000 would be half a minute of heads."""
    return sorted({*range(0, num_tokens, stride), *range(max(0, num_tokens - num_answer - 8), num_tokens)})


def logit_chunks(
    real: Real, token_ids: list[int], hidden: list[Tensor], positions: list[int]
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Positions and both models' logits there, 256 rows at a time; ``hidden`` holds our rows of all ``token_ids``."""
    ours = torch.cat(hidden)[positions]
    theirs = real.oracle.model(torch.tensor(token_ids)[None]).last_hidden_state[0][positions]
    for start in range(0, len(positions), 256):
        rows = slice(start, start + 256)
        yield positions[rows], real.model.compute_logits(ours[rows]), real.oracle.lm_head(theirs[rows])


@pytest.mark.parametrize(
    ("lengths", "num_new", "stride"),
    [(texts.LONG_LENGTHS[2:3], 8, 64), pytest.param(texts.LONG_LENGTHS, 64, 8, marks=pytest.mark.slow)],
    ids=str,
)
@torch.inference_mode()
def test_parity_with_transformers(real: Real, lengths: tuple[int, ...], num_new: int, stride: int) -> None:
    """Logits of prompt and answer within 2e-3, and the answer is transformers' greedy one.

    Our answers are decoded through the cache in one ragged batch; transformers sees prompt and answer at once, so this also
    shows that cached ragged decode equals full recomputation.
    """
    all_prompts = prompts(real.tokenizer, lengths)
    worst, num_compared = 0.0, 0
    for prompt, said in zip(all_prompts, greedy(real.model, all_prompts, num_new), strict=True):
        answer, whole = said.answer, prompt + said.answer[:-1]
        compared = positions_to_compare(len(whole), num_answer=num_new, stride=stride)
        for positions, ours, theirs in logit_chunks(real, whole, said.hidden, compared):
            worst = max(worst, (ours - theirs).abs().max().item())
            best_two, best_ids = theirs.topk(2)
            sure = (best_two[:, 0] - best_two[:, 1] > MARGIN).tolist()
            for row, position in enumerate(positions):
                if sure[row] and position >= len(prompt) - 1:
                    assert answer[position - len(prompt) + 1] == int(best_ids[row, 0]), (prompt[:8], position)
                    num_compared += 1
    print(f"largest logit difference {worst:.2e}; {num_compared} greedy tokens compared")
    assert worst <= 2e-3
    assert num_compared >= len(all_prompts) * num_new * 0.95


@torch.inference_mode()
def test_greedy_text_of_the_real_model(real: Real) -> None:
    ids = real.tokenizer.encode("The capital of France is", add_bos=True)
    text = real.tokenizer.decode(greedy(real.model, [ids], 24)[0].answer)
    assert text.startswith(" the capital of the country of France. It is the largest city in France")


@pytest.mark.slow
@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(real: Real, embedded_gguf: Path) -> None:
    """Mean KL divergence over mixed text at most 0.001, same likeliest token for at least 98 %."""
    half = load_model(open_checkpoint(embedded_gguf), dtype="bfloat16")
    ids = torch.tensor(real.tokenizer.encode(texts.MIXED * 2, add_bos=True)[:1_200])
    exact = real.model.step(ids, ContiguousKVCache(half.config))
    rounded = half.step(ids, ContiguousKVCache(half.config))
    total, same = 0.0, 0
    for exact_rows, rounded_rows in zip(exact.split(256), rounded.split(256), strict=True):
        p = real.model.compute_logits(exact_rows).log_softmax(-1)
        q = half.compute_logits(rounded_rows).float().log_softmax(-1)
        total += (p.exp() * (p - q)).sum().item()
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
    print(f"mean KL {total / len(ids):.5f}, same top-1 {same / len(ids):.1%}")
    assert total / len(ids) <= 1e-3
    assert same / len(ids) >= 0.98
