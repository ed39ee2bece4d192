"""GGUF checkpoints with absurd metadata, whole or in parts: each opens, or costs one error of ours
of one line."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma3.checkpoints.gguf_checkpoint import GGUFCheckpoint
from gemma3.errors import Gemma3Error
from tests.gemma3 import tiny
from tests.gemma3.gguf_files import gguf_bytes, write_gguf

NUM_MUTANTS = 300
SHAPE = tiny.random_shape(random.Random(3)) | {"hidden_size": 32, "num_hidden_layers": 1, "head_dim": 16}
MODEL = tiny.oracle_model(SHAPE, 3)
ENTRIES = tiny.gguf_entries(tiny.weights_of(MODEL))
METADATA: dict[str, Any] = tiny.gguf_metadata(tiny.config_of(MODEL)) | {
    "gemma3.attention.sliding_window_pattern": [True],
    "gemma3.rope.local.freq_base": 1e4,
    "gemma3.final_logit_softcapping": 0.0,
    "general.type": "model",
    "general.name": "tiny it",
    "tokenizer.chat_template": "{{ bos_token }}",
}
PIECES: list[str] = METADATA["tokenizer.ggml.tokens"]
VALUES: list[Any] = [
    0,
    1,
    -1,
    2**31,
    2**32 - 1,
    2**63,
    np.uint8(3),
    np.float32(0.5),
    np.float64(-1e300),
    float("nan"),
    float("inf"),
    True,
    "",
    "gemma3",
    "x\n\x1b" * 300,
    [0],
    [1, 2, 3],
    [4] * 7,
    [2**31 - 1] * 7,
    [float("nan")] * len(PIECES),
    [3] * len(PIECES),
    [1] * len(PIECES),
    [5] * len(PIECES),
    [-1000.0] * len(PIECES),
    [float(i) for i in range(len(PIECES))],
    [True, False],
    [""],
    ["a", ""],
    [""] * len(PIECES),
    PIECES[::-1],
    [*PIECES, "a", "aa", "", "\u2581"],
    np.empty(0, np.int32),
    np.empty(0, np.bool_),
]


def mutants(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rng = random.Random(270)
    while True:
        changed = dict(metadata)
        for key in rng.sample(sorted(metadata), rng.choice((1, 1, 2, 3))):
            if rng.random() < 0.2:
                del changed[key]
            else:
                changed[key] = rng.choice(VALUES)
        yield changed


def opens(path: Path) -> bool:
    """Open and use all that is read from metadata. False: refused, by an error of ours."""
    try:
        checkpoint = GGUFCheckpoint.open(path)
        tokenizer = checkpoint.load_tokenizer()
        checkpoint.tuned_mark(tokenizer)
        checkpoint.chat_templates()
        assert tokenizer.decode(tokenizer.encode("a\n  <unused5>")).startswith("a")
    except Gemma3Error as error:
        message = str(error)
    else:
        return True
    assert message.isprintable()
    assert len(message) < 500
    return False


def test_absurd_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    num_open = sum(
        opens(write_gguf(path, changed, ENTRIES))
        for _, changed in zip(range(NUM_MUTANTS), mutants(METADATA), strict=False)
    )
    # Were nearly all refused, or nearly none, the mutations would test nothing.
    assert 0.1 * NUM_MUTANTS < num_open < 0.9 * NUM_MUTANTS


@pytest.mark.parametrize("mutated", [0, 1])
def test_absurd_parts(tmp_path: Path, mutated: int) -> None:
    """The metadata of one of two parts is absurd; either part is opened."""
    split = {
        "general.name": "tiny it",
        "split.count": np.uint16(2),
        "split.tensors.count": np.int32(len(ENTRIES)),
        "general.architecture": "gemma3",
    }
    metadata: list[dict[str, Any]] = [METADATA | split | {"split.no": 0}, split | {"split.no": 1}]
    names = list(ENTRIES)
    entries = [{name: ENTRIES[name] for name in names[part::2]} for part in (0, 1)]
    paths = [tmp_path / f"m-0000{part + 1}-of-00002.gguf" for part in (0, 1)]
    for path, own, some in zip(paths, metadata, entries, strict=True):
        path.write_bytes(gguf_bytes(own, some))
    assert all(map(opens, paths))
    keys = {"split.no", "split.count", "split.tensors.count", "general.architecture", "general.name"}
    num_open = 0
    for _, changed in zip(range(100), mutants({key: metadata[mutated][key] for key in keys}), strict=False):
        kept = {key: value for key, value in metadata[mutated].items() if key not in keys}
        write_gguf(paths[mutated], kept | changed, entries[mutated])
        num_open += opens(paths[0]) + opens(paths[1])
    assert 0 < num_open < 150
