"""Added tokens for which nobody resized the embedding: plain text, and a word at the start."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemma3.config import Gemma3TextConfig
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.gemma3 import tiny
from tests.gemma3.gguf_files import write_gguf

ROWS = tiny.VOCAB
NAME = "my"  # two characters, which merging could join
TEXT = "please my now"
OTHER_PIPELINE = {
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
    "decoder": {"type": "ByteFallback"},
}


def added(token_id: int, *, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": NAME, **flags, "special": special}


@pytest.fixture(params=["own pipeline", "library"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    content = tiny.byte_tokenizer() | (OTHER_PIPELINE if request.param == "library" else {})
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path


def add(path: Path, *, special: bool, name: str = NAME) -> None:
    content = json.loads(path.read_text())
    content["added_tokens"].append(added(ROWS, special=special) | {"content": name})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("special", [False, True], ids=["text", "control"])
def test_a_token_without_a_row(path: Path, *, special: bool, caplog: pytest.LogCaptureFixture) -> None:
    plain = Gemma3Tokenizer.from_local_path(path)
    add(path, special=special)
    caplog.clear()
    tokenizer = Gemma3Tokenizer.from_local_path(path, num_rows=ROWS)
    for parse_special in (False, True):
        token_ids = tokenizer.encode(TEXT, parse_special=parse_special)
        assert token_ids == plain.encode(TEXT, parse_special=parse_special)
        assert tokenizer.decode(token_ids) == TEXT
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.endswith("without a row of the embedding are read as plain text: 1, the first is 'my'")


def test_a_token_with_a_row_is_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(path, special=False)
    for num_rows in (None, ROWS + 1, ROWS + 64):
        tokenizer = Gemma3Tokenizer.from_local_path(path, num_rows=num_rows)
        assert ROWS in tokenizer.encode(TEXT)
    assert "row" not in caplog.text


def test_nothing_is_said_of_the_image_placeholder(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Google's own tokenizer.json has it beside text models, which have no row for it."""
    name = "<image_soft_token>"
    add(path, special=True, name=name)
    before, after = (Gemma3Tokenizer.from_local_path(path, num_rows=num_rows) for num_rows in (None, ROWS))
    assert "row" not in caplog.text
    for parse_special in (False, True):
        found = [tokenizer.encode(f"a {name}", parse_special=parse_special) for tokenizer in (before, after)]
        assert found[0] == found[1]
        assert (ROWS in found[1]) == parse_special


def test_of_a_gguf(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metadata = tiny.gguf_metadata(Gemma3TextConfig())
    extra: dict[str, Any] = {"tokens": NAME, "scores": 0.0, "token_type": 4}
    for key, value in extra.items():
        metadata[f"tokenizer.ggml.{key}"] = [*list(metadata[f"tokenizer.ggml.{key}"]), value]
    path = write_gguf(tmp_path / "model.gguf", metadata, {})
    assert ROWS in Gemma3Tokenizer.from_gguf(path).encode(TEXT)
    assert max(Gemma3Tokenizer.from_gguf(path, num_rows=ROWS).encode(TEXT)) < ROWS
    assert "without a row" in caplog.text
