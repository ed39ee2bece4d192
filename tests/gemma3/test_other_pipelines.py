"""Pipelines that are not Gemma's, against the library that they were made with: ids, bytes, bounds, and what is refused."""

import random
import threading
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gemma3.errors import TokenizerError
from gemma3.text.detokenizer import Detokenizer
from gemma3.text.library_pipeline import LibraryPipeline
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.gemma3.other_pipelines import (
    all_reasons,
    content_of,
    gemma_like,
    word_level,
    write,
)
from tests.gemma3.tokenizer_corpus import CONTROL, SENTENCES, make_corpus

REASONS = dict(all_reasons())
# What composes and what decomposes, what strips, and words of the tokens that ``other_pipelines`` adds.
TEXTS = [
    *SENTENCES,
    *(unicodedata.normalize("NFD", text) for text in SENTENCES),
    "\u1f82 \u01d5 e\u0301 \ufb01 \u2460",
    "  I do n't  <tool>  know , he said . \u2581 the last lighthouse, lighthouses\n\n ",
    " <|im_start|> user\n<tool> x<tool>",
    "<unk> <unused5><mask>",
    " ".join(CONTROL),
    "".join(CONTROL),
]


class Served:
    """One pipeline as we serve it, and as the library reads its file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.ours = Gemma3Tokenizer.from_local_path(write(folder, content_of(name)))
        self.library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        unknown = self.library.token_to_id("<unk>")
        self.control = self.ours.special_ids - {unknown}

    def expected(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        self.library.encode_special_tokens = not parse_special
        ids: list[int] = self.library.encode(text, add_special_tokens=add_bos).ids
        return ids

    def library_text(self, token_ids: list[int]) -> str:
        text: str = self.library.decode(token_ids, skip_special_tokens=False)
        return text


@pytest.fixture(scope="module", params=REASONS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("pipeline"), request.param)


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return [*TEXTS, *random.Random(8).sample(make_corpus(list(gemma_like()["model"]["vocab"])), 150)]


@pytest.mark.parametrize("add_bos", [True, False])
def test_ids_are_the_librarys(served: Served, corpus: list[str], add_bos: bool) -> None:
    for text in corpus:
        found = served.ours.encode(text, add_bos=add_bos, parse_special=True)
        assert found == served.expected(text, add_bos=add_bos, parse_special=True), text
        as_text = served.expected(text, add_bos=add_bos, parse_special=False)
        plain = served.expected(text, add_bos=False, parse_special=False)
        if not served.ours.special_ids.intersection(plain):  # the library's models know control tokens
            assert served.ours.encode(text, add_bos=add_bos) == as_text, text


def test_text_never_yields_a_control_token(served: Served, corpus: list[str]) -> None:
    """Not even where the vocabulary of the model has their names: a Unigram model finds them by itself."""
    for text in (*corpus, *(name for i in served.control for name in (served.ours.id_to_token(i),) * 2)):
        assert not served.control.intersection(served.ours.encode(text)), text


def test_the_bound_is_one(served: Served, corpus: list[str]) -> None:
    for text in (*corpus, " " * 500, "\u0301" * 500, "a" * 500, "\U0001f9ff" * 50):
        for parse_special in (True, False):
            num_tokens = len(served.ours.encode(text, parse_special=parse_special))
            assert served.ours.min_num_tokens(text) <= num_tokens, text


def test_texts_are_the_librarys_whole_and_streamed(served: Served) -> None:
    rng = random.Random(5)
    for _ in range(200):
        first, *rest = (rng.randrange(served.ours.vocab_size) for _ in range(rng.randint(1, 9)))
        begun, whole = served.library_text([first]), served.library_text([first, *rest])
        detokenizer = Detokenizer(served.ours.token_to_bytes)
        streamed = "".join(map(detokenizer.push, rest)) + detokenizer.finish()
        if "\ufffd" not in begun + whole + streamed:  # of bytes that are no character we make fewer U+FFFD
            assert served.ours.decode([first, *rest], skip_special=False) == whole
            assert begun + streamed == whole


def test_a_note_says_why(served: Served) -> None:
    assert served.ours.pipeline_note.startswith("run by the tokenizers library, because ")
    assert REASONS[served.name] in served.ours.pipeline_note


def test_others_run_while_a_long_text_is_encoded(tmp_path: Path) -> None:
    """The library's ``encode`` would keep every other thread waiting to its end."""
    tokenizer = Gemma3Tokenizer.from_local_path(write(tmp_path, content_of("NFC")))
    is_done, turns = threading.Event(), []

    def count() -> None:
        while not is_done.wait(0.001):
            turns.append(1)

    other = threading.Thread(target=count)
    other.start()
    num_before = len(turns)
    tokenizer.encode("lighthouse keeper " * 40_000)
    num_during = len(turns) - num_before
    is_done.set()
    other.join()
    assert num_during > 5


def test_dropout_is_for_training(tmp_path: Path) -> None:
    own = Gemma3Tokenizer.from_local_path(write(tmp_path / "own", gemma_like()))
    content = gemma_like()
    content["model"]["dropout"] = 0.9
    dropping = Gemma3Tokenizer.from_local_path(write(tmp_path / "dropping", content))
    assert isinstance(dropping._pipeline, LibraryPipeline)
    for text in TEXTS:
        assert dropping.encode(text) == own.encode(text)


def test_a_file_that_cuts_and_pads_does_not(tmp_path: Path) -> None:
    content = content_of("NFC")
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {"strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    tokenizer = Gemma3Tokenizer.from_local_path(write(tmp_path, content))
    assert len(tokenizer.encode("1+1=2")) == 5


def test_a_learnt_piece_may_become_a_control_token(tmp_path: Path) -> None:
    """Then merging makes it no longer, in neither pipeline."""
    for name in (None, "NFC"):
        content = content_of(name) if name else gemma_like()
        token_id = content["model"]["vocab"]["er"]
        content["added_tokens"].append(content["added_tokens"][0] | {"id": token_id, "content": "er"})
        tokenizer = Gemma3Tokenizer.from_local_path(write(tmp_path, content))
        assert token_id in tokenizer.special_ids
        assert token_id in tokenizer.encode("keeper", parse_special=True)
        assert token_id not in tokenizer.encode("keeper and every other")
        assert tokenizer.decode(tokenizer.encode("keeper")) == "keeper"


def test_names_that_a_vocabulary_lacks(tmp_path: Path) -> None:
    content = word_level()
    content["model"]["vocab"] = {
        {"<start_of_turn>": "<turn>"}.get(piece, piece): i for piece, i in content["model"]["vocab"].items()
    }
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<start_of_turn>"]
    tokenizer = Gemma3Tokenizer.from_local_path(write(tmp_path, content))
    assert tokenizer.token_to_id("<start_of_turn>") is None
    assert tokenizer.token_to_id("<end_of_turn>") == tokenizer.end_of_turn_id
    with pytest.raises(TokenizerError, match="has no <start_of_turn>"):
        _ = tokenizer.start_of_turn_id


def test_no_character_is_composed_of_more_than_four() -> None:
    """Else the bound of a normal form would be wrong."""
    assert max(len(unicodedata.normalize("NFD", chr(code))) for code in range(0x110000)) == 4
