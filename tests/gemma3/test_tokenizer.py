"""The tokenizer against the official ``tokenizer.json`` as the library reads it, from both of its sources."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gemma3.files.gguf import GGUFFile
from gemma3.text.gemma_pipeline import GemmaPipeline
from gemma3.text.json_vocabulary import TokenizerFile
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.gemma3.tokenizer_corpus import make_corpus

SPACE = "\u2581"
IMAGE_SOFT_TOKEN = "<image_soft_token>"
OFFICIAL_SPECIAL_IDS = {0, 1, 2, 3, 105, 106, 255999, 256000}


@pytest.fixture(scope="module")
def official(official_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(official_tokenizer_dir / "tokenizer.json"))


@pytest.fixture(scope="module")
def official_pieces(official: Tokenizer) -> list[str]:
    return [official.id_to_token(i) for i in range(official.get_vocab_size())]


@pytest.fixture(scope="module")
def corpus(official_pieces: list[str]) -> list[str]:
    return make_corpus(official_pieces)


@pytest.fixture(scope="module")
def official_ids(official: Tokenizer, corpus: list[str]) -> dict[bool, list[list[int]]]:
    """The ids of the corpus by ``parse_special``."""
    ids = {}
    for parse_special in (True, False):
        official.encode_special_tokens = not parse_special
        ids[parse_special] = [e.ids for e in official.encode_batch_fast(corpus, add_special_tokens=False)]
    return ids


@pytest.fixture(scope="module")
def from_json(official_tokenizer_dir: Path) -> Gemma3Tokenizer:
    return Gemma3Tokenizer.from_local_path(official_tokenizer_dir)


@pytest.fixture(scope="module")
def from_gguf(embedded_gguf: Path) -> Gemma3Tokenizer:
    return Gemma3Tokenizer.from_gguf(GGUFFile.open(embedded_gguf))


@pytest.fixture(scope="module", params=["from_json", "from_gguf"])
def tokenizer(request: pytest.FixtureRequest) -> Gemma3Tokenizer:
    found: Gemma3Tokenizer = request.getfixturevalue(request.param)
    return found


def test_the_official_table_is_known_by_its_hash(official_tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at all of its merges takes seconds."""
    monkeypatch.setattr(TokenizerFile, "merges", lambda self: pytest.fail("the merges were read"))
    tokenizer = Gemma3Tokenizer.from_local_path(official_tokenizer_dir)
    assert isinstance(tokenizer._pipeline, GemmaPipeline)


@pytest.mark.parametrize("parse_special", [True, False])
def test_ids_are_the_official_ones(
    tokenizer: Gemma3Tokenizer, corpus: list[str], official_ids: dict[bool, list[list[int]]], parse_special: bool
) -> None:
    assert len(set(corpus)) > 20_000
    different = [
        text
        for text, expected in zip(corpus, official_ids[parse_special], strict=True)
        if tokenizer.encode(text, parse_special=parse_special) != expected
    ]
    assert different == []


def test_decoding_is_the_inverse_of_encoding(
    tokenizer: Gemma3Tokenizer, corpus: list[str], official_ids: dict[bool, list[list[int]]]
) -> None:
    """Except that U+2581 becomes a space, which the vocabulary writes with the same character."""
    for text, with_special, without in zip(corpus, official_ids[True], official_ids[False], strict=True):
        expected = text.replace(SPACE, " ")
        for token_ids in (with_special, without):
            assert tokenizer.decode(token_ids, skip_special=False) == expected
            assert b"".join(map(tokenizer.token_to_bytes, token_ids)) == expected.encode()


def test_bytes_of_every_token(tokenizer: Gemma3Tokenizer, official: Tokenizer, official_pieces: list[str]) -> None:
    ids = range(tokenizer.vocab_size)
    first_byte = official.token_to_id("<0x00>")
    decoded = official.decode_batch([[i] for i in ids], skip_special_tokens=False)
    for i, text in zip(ids, decoded, strict=True):
        assert tokenizer.id_to_token(i) == official_pieces[i]
        if first_byte <= i < first_byte + 256:
            assert tokenizer.token_to_bytes(i) == bytes([i - first_byte])
        else:
            assert tokenizer.token_to_bytes(i) == text.encode()


def test_special_ids(from_json: Gemma3Tokenizer, from_gguf: Gemma3Tokenizer) -> None:
    assert from_gguf.special_ids == OFFICIAL_SPECIAL_IDS
    assert from_json.special_ids == OFFICIAL_SPECIAL_IDS | {262144}
    for tokenizer in (from_json, from_gguf):
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
        assert (tokenizer.start_of_turn_id, tokenizer.end_of_turn_id) == (105, 106)


def test_the_image_token_beyond_the_weights(from_json: Gemma3Tokenizer, from_gguf: Gemma3Tokenizer) -> None:
    """tokenizer.json names one token more than the model has rows; a GGUF does not, so there it is ordinary text."""
    assert (from_json.vocab_size, from_gguf.vocab_size) == (262145, 262144)
    assert from_json.encode(IMAGE_SOFT_TOKEN, parse_special=True) == [262144]
    assert from_json.encode(IMAGE_SOFT_TOKEN) == from_gguf.encode(IMAGE_SOFT_TOKEN)
    assert from_gguf.encode(IMAGE_SOFT_TOKEN, parse_special=True) == from_gguf.encode(IMAGE_SOFT_TOKEN)


def test_text_never_yields_a_control_token(tokenizer: Gemma3Tokenizer, corpus: list[str]) -> None:
    found = set().union(*map(tokenizer.encode, corpus))
    assert not found & tokenizer.special_ids


def test_threads_do_not_disturb_each_other(
    tokenizer: Gemma3Tokenizer, corpus: list[str], official_ids: dict[bool, list[list[int]]]
) -> None:
    """Texts full of control tokens, encoded with and without special matching at the same time."""
    texts, modes = corpus[-1000:] * 2, [True] * 1000 + [False] * 1000
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text, mode: tokenizer.encode(text, parse_special=mode), texts, modes))
    assert found == official_ids[True][-1000:] + official_ids[False][-1000:]


def test_add_bos(tokenizer: Gemma3Tokenizer) -> None:
    assert tokenizer.encode("", add_bos=True) == [2]
    assert tokenizer.encode("a b", add_bos=True) == [2, *tokenizer.encode("a b")]
    assert tokenizer.encode("<bos>a", add_bos=True, parse_special=True)[:2] == [2, 2]


def test_decode_skips_only_control_tokens(tokenizer: Gemma3Tokenizer) -> None:
    token_ids = tokenizer.encode("<start_of_turn>user\n<b>hi<unused3><end_of_turn>", add_bos=True, parse_special=True)
    assert tokenizer.decode(token_ids) == "user\n<b>hi<unused3>"
    assert tokenizer.decode(tuple(token_ids), skip_special=False).startswith("<bos><start_of_turn>user\n")


def test_half_a_character_is_replaced(tokenizer: Gemma3Tokenizer, official: Tokenizer) -> None:
    assert tokenizer.decode([official.token_to_id("<0xE2>"), *tokenizer.encode("x")]) == "\ufffdx"
