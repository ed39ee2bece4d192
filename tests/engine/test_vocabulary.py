"""An embedding whose rows are not the tokenizer's pieces: only ids that have both are chosen, reported or allowed."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import RequestError
from engine.loading import LoadedEngine
from engine.sampling_params import SamplingParams
from gemma3.checkpoints.checkpoint import open_checkpoint
from tests.engine.engines import load, run
from tests.gemma3 import tiny

PADDED = tiny.VOCAB + 64
PRECISIONS = [{"quantization": "int8"}, {"quantization": "int4"}, {"dtype": "float32"}]
SAMPLED = SamplingParams(temperature=2.0, n=4, seed=1, max_tokens=24, ignore_eos=True, logprobs=20, prompt_logprobs=20)


def checkpoint_of(folder: Path, num_rows: int) -> Path:
    """Rows without a piece are five times the others, so that they would be chosen at once."""
    shape = tiny.random_shape(random.Random(3)) | {"vocab_size": num_rows, "num_hidden_layers": 2}
    model = tiny.oracle_model(shape, 3)
    model.model.embed_tokens.weight[tiny.VOCAB :] *= 5
    return tiny.save_directory(folder, model)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("padded") / "model", PADDED)


def load_or_skip(path: Path, precision: dict[str, str]) -> LoadedEngine:
    if "quantization" in precision:
        pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
    return load(path, **{"dtype": "auto", **precision})


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_rows_without_a_piece_are_never_chosen_or_reported(padded: Path, precision: dict[str, str]) -> None:
    engine = load_or_skip(padded, precision)
    assert engine.info.vocab_size == tiny.VOCAB
    for params in (SAMPLED, replace(SAMPLED, temperature=0.0, n=1), SamplingParams(temperature=0.0, ignore_eos=True)):
        for answer in run(engine, {"a": [2, 150, 151]}, params)["a"]:
            assert max(answer.token_ids) < tiny.VOCAB
            assert all(token_id < tiny.VOCAB for entry in answer.logprobs for token_id, _ in entry.top)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_naming_one_is_the_request_s_fault(padded: Path, precision: dict[str, str]) -> None:
    core = load_or_skip(padded, precision).core
    bad = tiny.VOCAB
    for param, prompt, fields in (
        ("prompt", [2, bad], {}),
        ("logit_bias", [2], {"logit_bias": {bad: 100.0}}),
        ("stop_token_ids", [2], {"stop_token_ids": (bad,)}),
        ("allowed_token_ids", [2], {"allowed_token_ids": (3, bad)}),
        ("logprob_token_ids", [2], {"logprob_token_ids": (bad, 3), "logprobs": 0}),
    ):
        with pytest.raises(RequestError, match=rf"{param} holds the token id {bad}") as caught:
            core.add_request("a", prompt, SamplingParams(**fields))
        assert caught.value.param == param
    with pytest.raises(RequestError, match="prediction"):
        core.add_request("a", [2], SamplingParams(), prediction_token_ids=[bad])


def test_torch_answers_as_if_those_rows_were_not_there(padded: Path, tmp_path: Path) -> None:
    """Down to the log probabilities: their sum is over the vocabulary."""
    tensors = tiny.weights_of(_model(PADDED))
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][: tiny.VOCAB].clone()
    exact = tiny.save_directory(tmp_path / "exact", _model(tiny.VOCAB), tensors)
    params = replace(SAMPLED, temperature=0.0, n=1)
    (got,), (expected,) = (run(load(path), {"a": [2, 150, 151]}, params)["a"] for path in (padded, exact))
    assert got.token_ids == expected.token_ids
    for entry, other in zip(got.logprobs, expected.logprobs, strict=True):
        assert entry.logprob == pytest.approx(other.logprob, abs=1e-4)


def _model(num_rows: int) -> "tiny.OracleModel":
    shape = tiny.random_shape(random.Random(3)) | {"vocab_size": num_rows, "num_hidden_layers": 2}
    return tiny.oracle_model(shape, 3)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_the_core_chooses_among_the_first_rows_alone(padded: Path, scheme: str) -> None:
    """Greedily by two planes too, though the last panel of 16 rows holds some without a piece."""
    pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
    from gemma3.cpu.load import load_packed
    from gemma3.cpu.model import CpuModel, RowRequest, Segment

    checkpoint = open_checkpoint(padded)
    packed = load_packed(checkpoint, scheme)
    prompt, segments = [2, 150, 151, 152], [Segment(0, 4, [0], [0], 0)]
    logits = []
    for vocab_size in (PADDED, tiny.VOCAB):
        model = CpuModel(replace(checkpoint.config, vocab_size=vocab_size), packed, num_threads=1)
        model.allocate_kv(1, 1)
        logits.append(model.logits(prompt, segments, range(4)))
        chosen = [sampled.token_id for sampled in model.step(prompt, segments, [RowRequest(i) for i in range(4)])]
        assert chosen == logits[-1].argmax(1).tolist()
    assert np.array_equal(logits[0][:, : tiny.VOCAB], logits[1])
    assert (logits[0].argmax(1) >= tiny.VOCAB).any(), "the rows without a piece are not tempting"
    with pytest.raises(ValueError, match="bytes, expected"):
        CpuModel(replace(checkpoint.config, vocab_size=PADDED + 16), packed, num_threads=1)


def test_an_end_token_without_a_row_is_passed_over(padded: Path) -> None:
    """generation_config.json may name it; it cannot be banned before ``min_tokens`` and need not be."""
    (padded / "generation_config.json").write_text(f'{{"eos_token_id": [1, {tiny.VOCAB}, 9999999]}}')
    for precision in PRECISIONS:
        engine = load_or_skip(padded, precision)
        params = SamplingParams(temperature=0.0, min_tokens=4, max_tokens=4)
        assert len(run(engine, {"a": [2, 150]}, params)["a"][0].token_ids) == 4


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_pieces_without_a_row(tmp_path: Path, precision: dict[str, str]) -> None:
    """A text may hold them: then the prompt is refused."""
    engine = load_or_skip(checkpoint_of(tmp_path / "model", 300), precision)
    assert engine.info.vocab_size == 300
    with pytest.raises(RequestError, match="prompt holds the token id 362"):
        engine.core.add_request("a", [2, tiny.VOCAB - 1], SamplingParams())
    assert max(run(engine, {"a": [2, 150]}, SAMPLED)["a"][0].token_ids) < 300
