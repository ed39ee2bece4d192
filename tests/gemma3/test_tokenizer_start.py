"""How a tokenizer starts: from small files with every kind of piece, from none, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from gemma3.errors import GGUFError, TokenizerError
from gemma3.files.gguf import GGUFFile
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.gemma3.gguf_files import gguf_bytes
from tests.gemma3.tokenizer_corpus import CONTROL

SPACE = "\u2581"
NORMAL = (f"{SPACE}t", "he", f"{SPACE}the", "aa", "aaaa", "</", f"{SPACE}</", f">{SPACE}</", SPACE, *"thea></s")
USER_DEFINED = ("\n", "\n\n", "  ", "   ", "<b>")
KEY = "tokenizer.ggml."
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def small_metadata(**changes: object) -> dict[str, Any]:
    """A GGUF vocabulary with every kind of piece; a change to ``None`` leaves a key out."""
    unused = [f"<unused{i}>" for i in range(100)]
    control = (*CONTROL[:4], "<mask>", *unused, *CONTROL[4:6], "<my_control>")
    pieces = dict.fromkeys(control, (3, -1000.0)) | dict.fromkeys((*USER_DEFINED, *CONTROL[6:]), (4, -1000.0))
    pieces |= {f"<0x{byte:02X}>": (6, 0.0) for byte in range(256)}
    pieces |= {piece: (1, -float(rank)) for rank, piece in enumerate(NORMAL)}
    types, scores = zip(*pieces.values(), strict=True)
    metadata = {
        f"{KEY}model": "llama",
        f"{KEY}tokens": list(pieces),
        f"{KEY}scores": np.array(scores, np.float32),
        f"{KEY}token_type": np.array(types, np.int32),
    } | {(name if "." in name else f"{KEY}{name}"): value for name, value in changes.items()}
    return {name: value for name, value in metadata.items() if value is not None}


def small_gguf(**changes: object) -> Gemma3Tokenizer:
    return Gemma3Tokenizer.from_gguf(GGUFFile(gguf_bytes(small_metadata(**changes), {}), name="small.gguf"))


def write_json(folder: Path, **changes: object) -> Path:
    """The same vocabulary as a ``tokenizer.json`` that the library writes, with some of its keys changed."""
    pieces = [piece.replace(" ", SPACE) for piece in small_metadata()[f"{KEY}tokens"]]
    merges = [(SPACE * 2, SPACE), (SPACE, SPACE * 2), (SPACE, SPACE)]
    merges += [(p[:k], p[k:]) for p in NORMAL for k in range(len(p) - 1, 0, -1) if p[:k] in pieces and p[k:] in pieces]
    vocab, unknown = {piece: i for i, piece in enumerate(pieces)}, "<unk>"
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    control = [*CONTROL, "<my_control>"]
    tokenizer.add_special_tokens(control)
    added = [piece for piece, kind in zip(pieces, small_metadata()[f"{KEY}token_type"], strict=True) if kind in (3, 4)]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in added if piece not in control])
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()) | changes))
    return folder


def pieces_of(tokenizer: Gemma3Tokenizer, token_ids: Iterable[int]) -> list[str]:
    return [tokenizer.id_to_token(i).replace(SPACE, "_") for i in token_ids]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the the", ["_the", "_the"]),
        ("   the", ["___", "t", "he"]),  # runs of spaces merge first, and take the space of the word
        ("     s", ["___", "__", "s"]),
        ("aaaaa", ["aaaa", "a"]),  # equal ranks merge from the left
        ("> </<b>> </", [">_</", "<b>", ">_</"]),  # the one kind of piece that reaches across a space
        ("a\n\n\na<b>", ["a", "\n\n", "\n", "a", "<b>"]),
        ("\xe9", ["<0xC3>", "<0xA9>"]),
    ],
)
def test_merging_worked_examples(tmp_path: Path, text: str, expected: list[str]) -> None:
    for tokenizer in (small_gguf(), Gemma3Tokenizer.from_local_path(write_json(tmp_path))):
        assert pieces_of(tokenizer, tokenizer.encode(text)) == expected
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_gguf_may_be_given_by_its_path(tmp_path: Path) -> None:
    path, text = tmp_path / "small.gguf", " the <b>\n"
    path.write_bytes(gguf_bytes(small_metadata(), {}))
    for source in (path, str(path)):
        assert Gemma3Tokenizer.from_gguf(source).encode(text) == small_gguf().encode(text)
    with pytest.raises(GGUFError, match="no such file"):
        Gemma3Tokenizer.from_gguf(tmp_path / "other.gguf")


def test_control_pieces(tmp_path: Path) -> None:
    """A GGUF marks placeholders as control and image tokens as user-defined; the official file the other way round."""
    expected = {*CONTROL, "<my_control>"}
    for tokenizer in (small_gguf(), Gemma3Tokenizer.from_local_path(write_json(tmp_path))):
        assert set(pieces_of(tokenizer, tokenizer.special_ids)) == expected
        assert not tokenizer.special_ids.intersection(tokenizer.encode("".join(sorted(expected))))
        assert pieces_of(tokenizer, tokenizer.encode("<mask><unused0>")) == ["<mask>", "<unused0>"]


def test_the_stand_in_speaks_bytes() -> None:
    tokenizer = Gemma3Tokenizer()
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    assert (tokenizer.id_to_token(3), tokenizer.vocab_size) == ("<unk>", 262)
    text = "Stra\xdfe <bos> \U0001f600\n"
    token_ids = tokenizer.encode(text)
    assert len(token_ids) == len(text.encode())
    assert tokenizer.decode(token_ids) == text
    assert tokenizer.encode("<bos>x", parse_special=True) == [2, *tokenizer.encode("x")]


def test_wrong_flags_open_no_turn(tmp_path: Path) -> None:
    ids = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106}
    added = [{"id": i, "content": piece, "special": False, **FLAGS} for piece, i in ids.items()]
    tokenizer = Gemma3Tokenizer.from_local_path(write_json(tmp_path, added_tokens=added))
    assert tokenizer.special_ids == set(ids.values())
    assert not tokenizer.special_ids.intersection(tokenizer.encode("<start_of_turn>"))
    assert tokenizer.encode("<start_of_turn>", parse_special=True) == [tokenizer.start_of_turn_id]


def test_settings_of_a_training_do_not_cut_or_pad(tmp_path: Path) -> None:
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None}
    pad |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    tokenizer = Gemma3Tokenizer.from_local_path(write_json(tmp_path, truncation=cut, padding=pad))
    for parse_special in (True, False):
        assert [len(tokenizer.encode(text, parse_special=parse_special)) for text in ("", "abc")] == [0, 3]


def test_importing_and_encoding_needs_no_torch() -> None:
    code = (
        "import sys; from gemma3.text.tokenizer import Gemma3Tokenizer; "
        "assert Gemma3Tokenizer().encode('x'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def refusal(make: Callable[[], object]) -> str:
    """The message of the error, one printable line of ASCII."""
    with pytest.raises(TokenizerError) as caught:
        make()
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize("text", ["\ud800", "abc\udfff", "<bos>\udc80 x"])
@pytest.mark.parametrize("parse_special", [True, False])
def test_lone_surrogates_are_refused(text: str, parse_special: bool) -> None:
    at = next(i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    message = refusal(lambda: Gemma3Tokenizer().encode(text, parse_special=parse_special))
    assert f"U+{ord(text[at]):04X} at character {at}" in message


@pytest.mark.parametrize("token_id", [-1, 262, 10**30])
@pytest.mark.parametrize("method", ["decode", "token_to_bytes", "id_to_token"])
def test_ids_outside_of_the_vocabulary_are_refused(token_id: int, method: str) -> None:
    call = getattr(Gemma3Tokenizer(), method)
    assert f"{token_id} is outside of the vocabulary [0, 262)" in refusal(
        lambda: call([token_id] if method == "decode" else token_id)
    )


def test_missing_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "tokenizer.json", tmp_path / "nowhere"):
        assert str(path) in refusal(lambda path=path: Gemma3Tokenizer.from_local_path(path))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"model": 1}', '{"model": {}}', "\xff", "[" * 100_000]
)
def test_damaged_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content.encode("latin-1"))
    assert "tokenizer.json" in refusal(lambda: Gemma3Tokenizer.from_local_path(tmp_path))


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    file = write_json(tmp_path) / "tokenizer.json"
    whole = file.read_bytes()
    for size in range(1, len(whole), 97):
        file.write_bytes(whole[:size])
        refusal(lambda: Gemma3Tokenizer.from_local_path(tmp_path))


@pytest.mark.parametrize(
    "model",
    [
        models.WordPiece({"[UNK]": 0, "[PAD]": 1, "a": 2}, unk_token="[UNK]"),
        models.WordLevel({"<unk>": 0}, unk_token="<unk>"),
        models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0),
        models.BPE({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}, []),
        models.BPE({"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 106, "<end_of_turn>": 107}, []),
        models.BPE({"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106}, []),
    ],
    ids=["WordPiece", "WordLevel", "Unigram", "another BPE", "Gemma 2", "no bytes"],
)
def test_other_models_tokenizers_are_refused(tmp_path: Path, model: models.Model) -> None:
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    assert "Gemma 3" in refusal(lambda: Gemma3Tokenizer.from_local_path(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "gpt2"}, "'gpt2'"),
        ({"scores": np.zeros(3, np.float32)}, "3 values of tokenizer.ggml.scores"),
        ({"token_type": np.ones(4, np.int32)}, "4 values of tokenizer.ggml.token_type"),
        ({"tokens": ["<pad>", "<eos>"]}, "2 tokens"),
        ({"tokens": [*small_metadata()[f"{KEY}tokens"][:-1], "<b>"]}, "of them different"),
        ({"tokens": [*small_metadata()[f"{KEY}tokens"][:-1], ""]}, "has no text"),
        ({"tokens": ["<s>", *small_metadata()[f"{KEY}tokens"][1:]]}, "not Gemma 3's"),
    ],
)
def test_contradicting_ggufs_are_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: small_gguf(**changes))


@pytest.mark.parametrize(
    "changes", [{"tokens": None}, {"model": None}, {"tokens": 5}, {"scores": "x"}, {"token_type": [""]}]
)
def test_ggufs_without_a_vocabulary_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\."):
        small_gguf(**changes)
