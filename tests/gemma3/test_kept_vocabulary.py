"""The default's vocabulary, kept beside its weights: the same as the file's, or not used."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gemma3.checkpoints import kept_vocabulary as kept
from gemma3.checkpoints.checkpoint import Checkpoint, open_checkpoint
from gemma3.text.gguf_vocabulary import vocabulary_of_gguf
from gemma3.text.vocabulary import Vocabulary
from tests.gemma3 import tiny

# All ids of a vocabulary in one form or another, and pieces with every byte that the file itself uses.
VOCABULARY = Vocabulary(
    ["<pad>", "\n", "\n\n", "\r", "[1]", "\u2581\xe9", "0 "],
    added_ids=frozenset((0, 1, 5)),
    control_ids=frozenset((0,)),
    unused_ids=frozenset((4, 6)),
    late_ids=frozenset((1,)),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "default"
    folder.mkdir(parents=True)
    return folder / kept.FILE_NAME


def test_what_is_kept_is_what_is_read(path: Path) -> None:
    assert kept._read(path) is None
    kept._keep(path, VOCABULARY)
    assert kept._read(path) == VOCABULARY
    assert [each.name for each in path.parent.iterdir()] == [kept.FILE_NAME]


def _change(position: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [_change(0), _change(10), _change(72), _change(80), _change(-2), lambda content: content[:-1], lambda _: b""],
)
def test_a_damaged_file_is_not_used(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """The version, the weights that it is of, the checksum, an id, a piece, the end, all of it."""
    kept._keep(path, VOCABULARY)
    path.write_bytes(damage(path.read_bytes()))
    assert kept._read(path) is None


def test_a_file_that_others_may_write_is_not_used(path: Path) -> None:
    kept._keep(path, VOCABULARY)
    path.chmod(0o666)
    assert kept._read(path) is None


def test_pieces_that_the_form_cannot_hold_are_not_kept(path: Path) -> None:
    kept._keep(path, Vocabulary(["<pad>", "a\0b"], frozenset(), frozenset()))
    assert not path.exists()


def test_a_folder_that_takes_nothing_costs_nothing_but_time(tmp_path: Path) -> None:
    kept._keep(tmp_path / "missing" / kept.FILE_NAME, VOCABULARY)


def test_other_checkpoints_are_read_as_they_are(tmp_path: Path) -> None:
    model = tiny.oracle_model(tiny.random_shape(random.Random(5)), 5)
    path = tiny.save_gguf(tmp_path / "model.gguf", model, tiny.weights_of(model))
    checkpoint = open_checkpoint(path)
    assert kept.load_tokenizer(checkpoint).encode("abc") == checkpoint.load_tokenizer().encode("abc")
    assert list(tmp_path.iterdir()) == [path]


def test_the_default(embedded_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built once, then read; each time the vocabulary of the file."""
    checkpoint: Checkpoint = open_checkpoint(embedded_gguf)
    place = tmp_path / "cache" / "default" / embedded_gguf.name
    place.parent.mkdir(parents=True)
    monkeypatch.setattr(kept, "is_joined_gguf", lambda path, cache_dir: True)
    monkeypatch.setattr(type(checkpoint), "weight_files", [place])
    built = kept.load_tokenizer(checkpoint)
    expected = vocabulary_of_gguf(checkpoint.file).with_rows(checkpoint.config.vocab_size)
    assert kept._read(place.with_name(kept.FILE_NAME)) == expected
    monkeypatch.setattr(kept, "vocabulary_of_gguf", None)
    read = kept.load_tokenizer(checkpoint)
    text = "Once upon a time <b>\n\n\u8c03<end_of_turn>"
    assert read.encode(text) == built.encode(text) == checkpoint.load_tokenizer().encode(text)
