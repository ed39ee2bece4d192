"""Where bounds are not exact: a row of the embedding made for one input (``gemma3/cpu/src/panel_bounds.h``)."""

from pathlib import Path

import numpy as np
import pytest

from gemma3 import cpu
from tests.gemma3.core_twin import CoreTwin
from tests.gemma3.native import needs_native
from tests.gemma3.test_cpu_model import checkpoint_of, core_over, packed_weights, segment, whole_logits

if cpu.why_unavailable() is None:
    from gemma3.cpu.model import RowRequest
    from gemma3.cpu.packed_layout import PackedWeights

pytestmark = needs_native


@pytest.mark.xfail(strict=True, reason="bounds allow 8 deviations of the low nibbles: no proof (panel_bounds.h)")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0, "top_k": 1, "top_p": 0.95},
        {"repetition_penalty": 1.15, "seen": [7, 8, 9]},
        {"frequency_penalty": 1.0, "output_counts": [(8, 2)]},
        {"logit_bias": [(9, 0.1)], "banned": [1]},
    ],
    ids=str,
)
def test_the_largest_logit_of_a_row_made_against_it(tmp_path: Path, settings: dict[str, object]) -> None:
    """The low nibbles of one row follow the signs of the head's input; its high nibbles alone give it a small logit."""
    checkpoint = checkpoint_of(tmp_path / "model", 5, vocab_size=5_003, hidden_size=384, num_hidden_layers=1)
    weights, ids, hostile_id = packed_weights(checkpoint, "int8"), [7, 8, 9], 300
    twin = CoreTwin(checkpoint.config, weights.tensors)
    x_D, largest = twin.head_inputs(ids)[-1], twin.logits(ids)[-1].max()
    lows_D = np.where(x_D > 0, 15, 0).astype(np.uint8)
    planes = {name: np.frombuffer(weights.tensors[f"embedding.{name}"], np.uint8).copy() for name in ("high", "low")}
    for name, nibbles_D in (("high", np.full_like(lows_D, 8)), ("low", lows_D)):
        lines = planes[name].reshape(-1, 384 // 8, 16, 4)[hostile_id // 16, :, hostile_id % 16]
        halves = nibbles_D.reshape(-1, 2, 4)
        lines[:] = halves[:, 0] | halves[:, 1] << 4
    scales = np.frombuffer(weights.tensors["embedding.scales"], np.float32).copy()
    scales[hostile_id] = 1.02 * largest / (x_D @ lows_D)
    changed = {f"embedding.{name}": memoryview(plane) for name, plane in planes.items()}
    tensors = weights.tensors | changed | {"embedding.scales": memoryview(scales.view(np.uint8))}
    model = core_over(checkpoint, PackedWeights("int8", tensors))
    assert whole_logits(model, ids)[-1].argmax() == hostile_id, "the row is as meant"
    row = RowRequest(2)
    for name, value in settings.items():
        setattr(row, name, value)
    (sampled,) = model.step(ids, [segment(0, 3)], [row])
    assert sampled.token_id == hostile_id
