"""What a checkpoint says beside its weights: the tokens that end answers, and sampling defaults."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.default_sampling import default_sampling
from engine.outputs import FinishReason
from engine.sampling_params import SamplingParams
from tests.engine.engines import load, run
from tests.gemma3 import tiny

MODEL = tiny.oracle_model(tiny.random_shape(random.Random(5)) | {"num_hidden_layers": 2}, 5)
NAMED = 42  # <unused37>, which nothing ends by itself
PIECE = f"<unused{NAMED - 5}>"
FILES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "nothing": {},
    "generation_config": {"generation_config.json": {"eos_token_id": [1, NAMED]}},
    "null in it": {"generation_config.json": {"eos_token_id": None}, "config.json": {"eos_token_id": NAMED}},
    "config": {"config.json": {"eos_token_id": [1, NAMED]}},
    "tokenizer_config": {"tokenizer_config.json": {"eos_token": PIECE}},
    "tokenizer_config object": {"tokenizer_config.json": {"eos_token": {"content": PIECE, "lstrip": False}}},
}


def ends_at_named(path: Path) -> bool:
    """Whether an answer in which the token is sure to come ends there."""
    params = SamplingParams(temperature=0.0, max_tokens=3, logit_bias={NAMED: 100.0})
    (answer,) = run(load(path), {"a": [2, 150, 151]}, params)["a"]
    return answer.finish_reason is FinishReason.STOP and answer.token_ids == [NAMED]


@pytest.mark.parametrize("source", FILES)
def test_files_of_a_folder(tmp_path: Path, source: str) -> None:
    folder = tiny.save_directory(tmp_path / "model", MODEL)
    for name, content in FILES[source].items():
        path = folder / name
        before = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(before | dict(content)))
    assert ends_at_named(folder) == (source != "nothing")


@pytest.mark.parametrize("key", [None, "eos_token_id", "eot_token_id", "eom_token_id"])
def test_keys_of_a_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    metadata = tiny.gguf_metadata(tiny.config_of(MODEL)) | ({f"tokenizer.ggml.{key}": NAMED} if key else {})
    monkeypatch.setattr(tiny, "gguf_metadata", lambda _: metadata)
    assert ends_at_named(tiny.save_gguf(tmp_path / "model.gguf", MODEL)) == (key is not None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0.7, "top_k": 64, "top_p": 0.95}, {"temperature": 0.7, "top_k": 64, "top_p": 0.95}),
        ({"temperature": 0, "top_p": 1}, {"temperature": 0.0, "top_p": 1.0}),
        ({"top_k": 64.0}, {"top_k": 64}),
        ({"temperature": None, "top_k": None}, {}),
        ({"repetition_penalty": 1.2, "do_sample": True}, {}),
    ],
    ids=str,
)
def test_sampling_defaults(given: dict[str, Any], expected: dict[str, float], caplog: pytest.LogCaptureFixture) -> None:
    found = default_sampling(given)
    assert found == expected
    assert all(isinstance(value, int) == (name == "top_k") for name, value in found.items())
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 5.0),
        ("temperature", -1),
        ("temperature", "0.7"),
        ("temperature", True),
        ("temperature", float("nan")),
        ("temperature", 10**400),
        ("top_k", 2.5),
        ("top_k", float("inf")),
        ("top_k", 2**40),
        ("top_p", -0.5),
        ("top_p", 1.5),
        ("top_p", [0.9]),
    ],
    ids=str,
)
def test_what_no_request_may_have_is_told_at_the_start(
    name: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert default_sampling({name: value, "do_sample": True}) == {}
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"generation_config.json: {name}={value!r:.60} is passed over")
    assert "\n" not in message


def test_a_default_out_of_range_is_no_request_s_fault(tmp_path: Path) -> None:
    folder = tiny.save_directory(tmp_path / "model", MODEL)
    (folder / "generation_config.json").write_text('{"temperature": 5.0, "top_k": 8, "top_p": 1.5}')
    assert load(folder).info.default_sampling == {"top_k": 8}
