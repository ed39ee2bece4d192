"""Texts that are made to be slow: their ids are the official ones, at a bounded cost, and their number of tokens is known to be
large before anything is merged.
"""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from tokenizers import Tokenizer

from gemma3.text import bpe
from gemma3.text.bpe import BYTE_PIECES, Merger
from gemma3.text.gemma_pipeline import GemmaPipeline
from gemma3.text.length_bound import LengthBound
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.gemma3.test_tokenizer import from_gguf as from_gguf
from tests.gemma3.test_tokenizer import official as official

RANDOM = random.Random(5)


def merger_of(tokenizer: Gemma3Tokenizer) -> Merger:
    pipeline = tokenizer._pipeline
    assert isinstance(pipeline, GemmaPipeline)
    return pipeline._merger


def some(letters: str) -> Callable[[int], str]:
    return lambda num: "".join(RANDOM.choices(letters, k=num))


LONG_TEXTS = {
    "one letter": lambda num: "a" * num,
    "letters": some("abcdefghijklmnopqrstuvwxyz"),
    "few letters": some("ab"),
    "no piece has them": some("\ufdfa\U0001f9ff\u4e00\u9fff"),
    "spaces": lambda num: " " * num,
    "words": some("ab >"),
    "line breaks": some("\n\na"),
    "added tokens": some("<ht\n1>"),
}


@pytest.mark.parametrize("kind", LONG_TEXTS)
def test_a_long_text_has_the_official_ids(from_gguf: Gemma3Tokenizer, official: Tokenizer, kind: str) -> None:
    """Several windows and blocks long, so that both have seams."""
    text = LONG_TEXTS[kind](2 * bpe.BLOCK_CHARS + 77)
    token_ids = from_gguf.encode(text, parse_special=True)
    assert token_ids == official.encode(text, add_special_tokens=False).ids
    assert from_gguf.min_num_tokens(text) <= len(token_ids)


def test_the_bound_is_reached(from_gguf: Gemma3Tokenizer) -> None:
    for text, num_tokens in (("addEventListener" * 9, 9), (" " * 310, 10), ("\n" * 310 + "addEventListener", 11)):
        assert from_gguf.min_num_tokens(text) == len(from_gguf.encode(text)) == num_tokens
    assert from_gguf.min_num_tokens("\u2581" * 310) == 10
    assert from_gguf.min_num_tokens("a" * 17) == 2
    assert from_gguf.min_num_tokens("") == 0


def test_a_vocabulary_without_long_pieces() -> None:
    assert LengthBound(["a", "b"]).min_num_tokens("abab") == 4
    assert LengthBound(["aa", "ab"]).min_num_tokens("ababa") == 3
    assert LengthBound(["aaa", "ab"]).min_num_tokens("aaaaaa" + "bbbb") == 4


def domino_merger(size: int) -> tuple[Merger, str]:
    """A text in which the last character decides how the first ones merge: each pair merges before the one to its left."""
    chars = [chr(0x4E00 + i) for i in range(size)]
    pairs = [left + right for left, right in pairwise(chars)]
    pieces = [*BYTE_PIECES, *chars, *reversed(pairs)]
    ids = {piece: i for i, piece in enumerate(pieces)}
    return Merger(ids, {piece: ids[piece] for piece in pairs}), "".join(chars)


@pytest.mark.parametrize("size", [100, 101, 400, 401])
def test_what_comes_later_may_change_everything_before(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Then more than the usual overlap is merged again."""
    monkeypatch.setattr(bpe, "_WINDOW_CHARS", 7)
    merger, text = domino_merger(size)
    assert merger._merge_long(text) == merger._merge(text)
    assert merger._merge(text)[0] == text[: 2 - size % 2]


@pytest.mark.parametrize("window_chars", [1, 2, 3, 10, 33])
def test_windows_merge_as_the_whole_does(
    monkeypatch: pytest.MonkeyPatch, from_gguf: Gemma3Tokenizer, window_chars: int
) -> None:
    monkeypatch.setattr(bpe, "_WINDOW_CHARS", window_chars)
    monkeypatch.setattr(bpe, "_OVERLAP_PARTS", 1)
    merger = merger_of(from_gguf)
    for _ in range(300):
        word = "".join(RANDOM.choices("aeiorstn-=\n\u2581\u00e9", k=RANDOM.randrange(1, 120)))
        assert merger._merge_long(word) == merger._merge(word)


@pytest.mark.parametrize("block_chars", [1, 2, 3, 10])
def test_blocks_have_the_words_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, from_gguf: Gemma3Tokenizer, block_chars: int
) -> None:
    merger = merger_of(from_gguf)
    texts = [
        "",
        "a",
        " ",
        "  a  b",
        "a> b",
        ">_</ <",
        *("".join(RANDOM.choices("ab >\u2581", k=40)) for _ in range(200)),
    ]
    for text in texts:
        whole = merger._word_ends.split(text.replace(" ", "\u2581"))
        with monkeypatch.context() as patched:
            patched.setattr(bpe, "BLOCK_CHARS", block_chars)
            assert [word for words in merger._blocks(text) for word in words] == whole


def test_no_more_than_a_window_is_merged_at_once(monkeypatch: pytest.MonkeyPatch, from_gguf: Gemma3Tokenizer) -> None:
    """A heap of a whole word takes 190 bytes a character."""
    merger = merger_of(from_gguf)
    lengths: list[int] = []
    merge = merger._merge

    def counted(word: str) -> list[str]:
        lengths.append(len(word))
        return merge(word)

    monkeypatch.setattr(merger, "_merge", counted)
    monkeypatch.setattr(merger, "_cached_window", counted)
    merger._merge_long(some("abc")(50_000))
    assert max(lengths) < 2 * bpe._WINDOW_CHARS
    assert sum(lengths) < 2 * 50_000
