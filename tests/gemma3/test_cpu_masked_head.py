"""The head of rows that may choose some ids only: bit for bit what all logits, then the mask, then sampling give.

``sample`` on the row's logits is the twin here; ``test_cpu_sampling.py`` holds it to the definition.
"""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.token_mask import mask_of
from gemma3 import cpu
from tests.gemma3.native import needs_native
from tests.gemma3.test_cpu_model import checkpoint_of, core_over, packed_weights, segment

if cpu.why_unavailable() is None:
    from gemma3.cpu import _native
    from gemma3.cpu.model import CpuModel, RowRequest, Sampled
    from gemma3.cpu.packed_layout import PackedWeights

pytestmark = needs_native

VOCAB = 5_003  # 313 panels, the last of 11 ids: few are 78 in a step of one row, 19 in one of many
NUM_ROWS = 12
PANEL = 16
Floats = NDArray[np.float32]

SETTINGS: list[dict[str, object]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 3},
    {"temperature": 1.3, "top_k": 400, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.6, "min_p": 0.01},
    {"temperature": 1.0, "min_p": 0.2},
    {"repetition_penalty": 1.7, "seen": list(range(0, VOCAB, 3))},
    {"temperature": 1.0, "frequency_penalty": 1.5, "presence_penalty": -1.0, "output_counts": [(9, 2), (4_000, 1)]},
    {"logit_bias": [(17, 30.0), (18, 4.0), (5_002, 3.0)]},
    {"temperature": 1.0, "banned": [0, 16, 17, 5_002]},
    {"num_logprobs": 3},
    {"temperature": 1.0, "top_p": 0.9, "num_logprobs": 0, "reported": [5_002, 3, 1_000]},
    {"target": 4_321, "num_logprobs": 0, "reported": list(range(0, VOCAB, 7)), "wants_rank": True},
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> "tuple[object, PackedWeights]":
    folder = tmp_path_factory.mktemp("masks") / "model"
    checkpoint = checkpoint_of(folder, 8, vocab_size=VOCAB, num_hidden_layers=2, hidden_size=192)
    return checkpoint, packed_weights(checkpoint, "int8")


def masks(rng: random.Random, logits: Floats) -> dict[str, list[int]]:
    """Allowed ids by kind; ``logits`` are the row's, so that a mask can forbid what the model wants most."""
    likeliest = np.argsort(-logits)[:300].tolist()
    first = PANEL * rng.randrange(VOCAB // PANEL)
    return {
        "none": [],
        "one": [rng.randrange(VOCAB)],
        "a panel": list(range(first, first + PANEL)),
        "the last panel": list(range(VOCAB // PANEL * PANEL, VOCAB)),
        "neighbours and strangers": [*range(100, 190), *rng.sample(range(VOCAB), 7)],
        "sparse": rng.sample(range(VOCAB), 70),
        "a twentieth": rng.sample(range(VOCAB), VOCAB // 20),
        "half": rng.sample(range(VOCAB), VOCAB // 2),
        "all but the likeliest": sorted(set(range(VOCAB)) - set(likeliest)),
        "all but one": sorted(set(range(VOCAB)) - {likeliest[0]}),
        "all": list(range(VOCAB)),
    }


def request(row: int, mask: bytes, settings: dict[str, object]) -> "RowRequest":
    made = dict(settings)
    keywords = {name: made.pop(name) for name in ("num_logprobs", "target", "wants_rank") if name in made}
    wanted = RowRequest(row, **keywords)
    for name, value in {**made, "allowed": mask, "uniform": random.Random(row).random()}.items():
        setattr(wanted, name, value)
    return wanted


def told(sampled: "Sampled") -> tuple[object, ...]:
    return sampled.token_id, sampled.is_finite, sampled.logprob, sampled.rank, sampled.top


def choose(model: "CpuModel", ids: Sequence[int], rows: "list[RowRequest]") -> list[tuple[object, ...]]:
    return [told(sampled) for sampled in model.step(ids, [segment(0, len(ids))], rows)]


@pytest.mark.parametrize("isa", ["portable", "avx2", "avxvnni", "avx512", "amx"])
def test_equals_all_logits_then_mask_then_sample(weights: "tuple[object, PackedWeights]", isa: str) -> None:
    """Every kind of mask with every setting, each alone (where more panels are few) and all of them in one step."""
    if isa not in _native.supported_isas():
        pytest.skip(f"this processor has no {isa}")
    checkpoint, packed = weights
    rng = random.Random(1)
    ids = [rng.randrange(VOCAB) for _ in range(NUM_ROWS)]
    model = core_over(checkpoint, packed, isa=isa)
    logits = model.logits(ids, [segment(0, NUM_ROWS)], list(range(NUM_ROWS)))
    rows, expected = [], []
    for number, settings in enumerate(SETTINGS):
        row = number % NUM_ROWS
        for name, allowed in masks(rng, logits[row]).items():
            assert allowed or name == "none"
            wanted = request(row, mask_of(allowed) or bytes(4), settings)
            rows.append(wanted)
            expected.append(told(_native.sample(logits[row].copy(), wanted)))
    assert choose(model, ids, rows) == expected
    assert [choose(model, ids, [wanted])[0] for wanted in rows] == expected
    shuffled = rng.sample(range(len(rows)), len(rows))
    for num_threads in (1, 3):
        other = core_over(checkpoint, packed, isa=isa, num_threads=num_threads)
        for part in (shuffled[:3], shuffled[3:40], shuffled[40:]):
            assert choose(other, ids, [rows[i] for i in part]) == [expected[i] for i in part]


def test_panels_side_by_side_of_different_rows(weights: "tuple[object, PackedWeights]") -> None:
    """Each row allows the panel after that of the row before: panels are multiplied at once for one row alone."""
    model, ids = core_over(*weights), list(range(NUM_ROWS))
    logits = model.logits(ids, [segment(0, NUM_ROWS)], ids)
    allowed = [list(range(PANEL * (10 + row), PANEL * (11 + row))) for row in ids]
    chosen = choose(model, ids, [request(row, mask_of(allowed[row]), {}) for row in ids])
    assert [token_id for token_id, *_ in chosen] == [
        each[int(logits[i][each].argmax())] for i, each in enumerate(allowed)
    ]


def test_a_row_without_an_allowed_id_chooses_nothing(weights: "tuple[object, PackedWeights]") -> None:
    """And harms no neighbour."""
    model, ids = core_over(*weights), list(range(NUM_ROWS))
    free = choose(model, ids, [RowRequest(3)])
    for settings in ({}, {"temperature": 1.0}, {"num_logprobs": 2}, {"banned": [5]}):
        none, beside = choose(model, ids, [request(3, bytes(4 * (VOCAB // 32 + 1)), settings), RowRequest(3)])
        assert none[:2] == (-1, False)
        assert [beside] == free


def test_an_answer_of_known_words_needs_no_other_part_of_the_head(weights: "tuple[object, PackedWeights]") -> None:
    """What lies in the panels that a row cannot choose from is not read, sampled or greedy: here it is no number."""
    checkpoint, packed = weights
    scales = np.frombuffer(packed.tensors["embedding.scales"], np.float32).copy()
    allowed, ids = [40, 41, 3_000], [40, 41, 3_000, 40]
    readable = np.isin(np.arange(len(scales)) // PANEL, [each // PANEL for each in allowed])
    scales[~readable] = np.nan
    spoilt = PackedWeights("int8", packed.tensors | {"embedding.scales": memoryview(scales.view(np.uint8))})
    for settings in ({}, {"temperature": 1.0, "top_p": 0.9}):
        rows = [request(row, mask_of(allowed), settings) for row in range(len(ids))]
        expected = choose(core_over(checkpoint, packed), ids, rows)
        assert choose(core_over(checkpoint, spoilt), ids, rows) == expected
        assert {token_id for token_id, *_ in expected} <= set(allowed)
    (whole,) = core_over(checkpoint, spoilt).step(ids, [segment(0, len(ids))], [request(0, b"", {"temperature": 1.0})])
    assert not whole.is_finite


def test_a_mask_is_the_words_it_was_given() -> None:
    row = RowRequest(0)
    assert row.allowed == b""
    row.allowed = mask_of([0, 33])
    assert row.allowed == bytes([1, 0, 0, 0, 2, 0, 0, 0])
    with pytest.raises(ValueError, match="32-bit words"):
        row.allowed = bytes(6)
    with pytest.raises(TypeError):
        row.allowed = [1, 2]  # type: ignore[assignment]


@pytest.mark.parametrize("bad", [mask_of([VOCAB]), bytes(4 * (VOCAB // 32 + 2))], ids=["an id", "a word"])
def test_a_mask_beyond_the_vocabulary_is_refused(weights: "tuple[object, PackedWeights]", bad: bytes) -> None:
    with pytest.raises(ValueError, match="allowed has a bit or a word beyond the 5003 ids"):
        choose(core_over(*weights), [1], [request(0, bad, {})])
