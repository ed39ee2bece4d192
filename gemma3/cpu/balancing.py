"""Which input channels of a matrix are large, and the factors that balance them against its weights before both are rounded.

SmoothQuant's idea (Xiao et al., 2023, arXiv 2211.10438) with the exponent 1/2, before the rotation: it halves the distance to
float32 that rotation alone leaves (docs/decisions.md). The channels are observed on a short text of many kinds,
``calibration.txt``: the factors are square roots of mean squares, which 460 tokens tell as well as 2,000 did, for a quarter of
the time.

Shapes: ``N`` outputs, ``K`` inputs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gemma3.checkpoints.checkpoint import Checkpoint
from gemma3.config import Gemma3TextConfig
from gemma3.cpu.model import CpuModel
from gemma3.cpu.packed_layout import PackedWeights
from gemma3.errors import Gemma3Error
from gemma3.progress import Progress, no_progress

EMBEDDING_INPUTS = "embedding"
"""Names the inputs of the head; those of layers are named as their matrices are, ``layers.0.qkv``."""

_TEXT = Path(__file__).with_name("calibration.txt")
_MAX_TOKENS = 512
_STRIDE = 7_919  # a prime: without a tokenizer, tokens from all over the vocabulary

# A channel that is all but silent in the text may speak in another.
_LEAST_SHARE = 1e-3

Floats = NDArray[np.float32]


def observe_inputs(
    config: Gemma3TextConfig, tensors: dict[str, memoryview], token_ids: Sequence[int], progress: Progress = no_progress
) -> dict[str, Floats]:
    """Mean squares of the inputs (K) of every matrix, of the model packed as int8 in ``tensors``."""
    squares = CpuModel(config, PackedWeights("int8", tensors)).observe_inputs(token_ids, progress)
    return {name: np.frombuffer(packed, np.float32) for name, packed in squares.items()}


def calibration_token_ids(checkpoint: Checkpoint) -> list[int]:
    """A short text of many kinds."""
    vocab_size = checkpoint.config.vocab_size
    try:
        found = checkpoint.load_tokenizer().encode(_TEXT.read_text(encoding="utf-8"), add_bos=True)
    except Gemma3Error:
        found = []  # the checkpoint has none; whoever needs text from it is told so
    token_ids = [token_id for token_id in found if token_id < vocab_size]
    limit = min(_MAX_TOKENS, checkpoint.config.context_length)
    return token_ids[:limit] or [i * _STRIDE % vocab_size for i in range(limit)]


def channel_factors(input_squares_K: Floats, rows_NK: Floats) -> Floats:
    """sqrt(size of the input / size of the weights) of each channel, 1 on average."""
    return _balance(input_squares_K, _mean_squares(rows_NK))


def shared_factors(input_squares_K: Floats, rows_NK: Floats, num_kv_heads: int, head_dim: int) -> Floats:
    """The same for the inputs of o, shared by the query heads of a KV head: (num_kv_heads, head_dim)."""
    squares = (input_squares_K, _mean_squares(rows_NK))
    return _balance(*(x_K.reshape(num_kv_heads, -1, head_dim).mean(1) for x_K in squares))


def _mean_squares(rows_NK: Floats) -> Floats:
    """By column, without a second matrix."""
    squares_K: Floats = np.einsum("nk,nk->k", rows_NK, rows_NK) / np.float32(len(rows_NK))
    return squares_K


def _balance(input_squares: Floats, weight_squares: Floats) -> Floats:
    inputs, weights = (np.sqrt(x) for x in (input_squares, weight_squares))
    inputs, weights = (np.maximum(x, _LEAST_SHARE * x.mean() or 1.0) for x in (inputs, weights))
    factors: Floats = np.sqrt(inputs / weights)
    normalised: Floats = (factors / factors.mean()).astype(np.float32)
    return normalised
