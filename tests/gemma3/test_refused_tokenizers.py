"""A ``tokenizer.json`` that cannot be served is refused when it is read, in one line that names what is wrong."""

import json
import random
from pathlib import Path

import pytest

from gemma3.errors import TokenizerError
from gemma3.text.library_pipeline import _one_line
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.gemma3.other_pipelines import (
    Change,
    Content,
    add,
    content_of,
    decode,
    gemma_like,
    metaspace,
    set_in_model,
    set_key,
    template,
    unigram,
    word_level,
    write,
)

CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "two pieces of one id": (lambda c: c["model"]["vocab"].update(er=400), "gives the id 400 both to"),
    "a hole": (lambda c: c["model"]["vocab"].update(er=10**6), "is missing"),
    "negative": (lambda c: c["model"]["vocab"].update(er=-1), "is missing"),
    "absurd": (lambda c: c["model"]["vocab"].update(er=10**40), "is missing"),
    "text as an id": (lambda c: c["model"]["vocab"].update(er="400"), "'400' as the id of 'er'"),
    "null as an id": (lambda c: c["model"]["vocab"].update(er=None), "None as the id of 'er'"),
    "true as an id": (lambda c: c["model"]["vocab"].update(er=True), "True as the id of 'er'"),
    "1.5 as an id": (lambda c: c["model"]["vocab"].update(er=1.5), "1.5 as the id of 'er'"),
    "no pieces": (set_in_model(vocab=None), "has no vocabulary"),
    "pieces in a list": (set_in_model(vocab=["a", "b"]), "not a piece and its score"),
    "an empty piece": (lambda c: c["model"]["vocab"].update({"": len(c["model"]["vocab"])}), "has no text"),
    "half a character": (lambda c: c["model"]["vocab"].update({"\ud800": len(c["model"]["vocab"])}), "lone surrogate"),
    "added twice": (lambda c: c["added_tokens"].append(c["added_tokens"][0]), "'<pad>' twice"),
    "added under another's id": (lambda c: c["added_tokens"][0].update(content="<x>"), "which is '<pad>'"),
    "added under two ids": (lambda c: c["added_tokens"][0].update(id=1), "gives '<pad>' the id 1"),
    "added far behind": (lambda c: (add("<x>")(c), c["added_tokens"][-1].update(id=10**6)), "the id 1000000; its id"),
    "added at -1": (lambda c: c["added_tokens"][0].update(id=-1), "-1 as added_tokens[0].id"),
    "added at null": (lambda c: c["added_tokens"][0].update(id=None), "None as added_tokens[0].id"),
    "added null": (lambda c: c["added_tokens"].insert(3, None), "None as added_tokens[3]"),
    "no list": (set_key("added_tokens", {}), "{} as added_tokens"),
    "a flag of text": (lambda c: c["added_tokens"][0].update(special="yes"), "'yes' as added_tokens[0].special"),
    "merges of no piece": (lambda c: c["model"]["merges"].insert(0, ["e", "\u0142\u0142"]), "no such piece"),
    "merges of three": (lambda c: c["model"]["merges"].insert(0, ["e", "r", "s"]), "a pair of pieces"),
    "merges of numbers": (lambda c: c["model"]["merges"].insert(0, 5), "a pair of pieces"),
    "merges of lists": (lambda c: c["model"]["merges"].insert(0, [["e"], ["r"]]), "a pair of pieces"),
    "no merges": (lambda c: c["model"].pop("merges"), "None as model.merges"),
    "another place of <bos>": (lambda c: _swap(c, "<bos>", "<unk>"), "is not Gemma 3's: token 2 is '<unk>'"),
    "the turns of Gemma 2": (lambda c: _swap(c, "<start_of_turn>", "<end_of_turn>"), "token 105 is '<end_of_turn>'"),
}


def _swap(content: Content, one: str, other: str) -> None:
    vocab = content["model"]["vocab"]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    for token in content["added_tokens"]:
        token["id"] = vocab[token["content"]]


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradictions_are_refused(tmp_path: Path, kind: str) -> None:
    change, words = CONTRADICTIONS[kind]
    content = gemma_like()
    change(content)
    with pytest.raises(TokenizerError) as caught:
        Gemma3Tokenizer.from_local_path(write(tmp_path, content))
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert str(tmp_path) in str(caught.value)


def test_panics_become_one_line() -> None:
    class PanicException(BaseException):
        """As pyo3's, which is no ``Exception``."""

    for error in (PanicException("no entry\nfound"), ValueError("no entry\nfound")):
        with pytest.raises(TokenizerError, match=r"^this: no entry found\.$"), _one_line("this"):
            raise error
    with pytest.raises(KeyboardInterrupt), _one_line("this"):
        raise KeyboardInterrupt


def _strip_at_the_end(content: Content) -> None:
    decode(*content["decoder"]["decoders"], {"type": "Strip", "content": " ", "start": 0, "stop": 1})(content)


def _replace_behind(content: Content) -> None:
    own = content["decoder"]["decoders"]
    decode(*own[1:], own[0])(content)


def _no_unknown(content: Content) -> None:
    content.clear()
    content.update(word_level())
    content["model"]["unk_token"] = "[UNK]"


def _unigram_without_unknown(content: Content) -> None:
    content.clear()
    content.update(unigram())
    content["model"]["unk_id"] = None


def _template_of_nothing(content: Content) -> None:
    template(1)(content)
    content["post_processor"]["special_tokens"].pop("1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_key("decoder", {"type": "BPEDecoder", "suffix": "</w>"}), "decoder, BPEDecoder, that cannot be followed"),
        (decode({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}), "decoder, CTC"),
        (_strip_at_the_end, "strips 0 characters before a text and 1 behind"),
        (_replace_behind, "decoder, ByteFallback and Fuse and Replace"),
        (set_key("normalizer", {"type": "Lower"}), "refused by the tokenizers library"),
        (set_key("normalizer", {"type": ["NFC"]}), "in its normalizer; it must be an object with a type"),
        (set_key("pre_tokenizer", "Whitespace"), "'Whitespace' in its pre_tokenizer"),
        (_no_unknown, "cannot encode every text"),
        (_unigram_without_unknown, "cannot encode every text"),
        (_template_of_nothing, "in its post-processor, which special_tokens lacks"),
        (template(10**6), "encodes a text to 1000000; ids are below"),
        (metaspace("sometimes"), "refused by the tokenizers library"),
        (set_in_model(type="Nonsense"), "refused by the tokenizers library"),
        (set_in_model(continuing_subword_prefix="##"), "which does not begin with the continuing_subword_prefix '##'"),
        (add("", lstrip=True), "'' as added_tokens"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(tmp_path: Path, change: Change, words: str) -> None:
    content = gemma_like()
    change(content)
    with pytest.raises(TokenizerError) as caught:
        Gemma3Tokenizer.from_local_path(write(tmp_path, content))
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_pointer_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(TokenizerError, match="is a Git LFS pointer"):
        Gemma3Tokenizer.from_local_path(tmp_path)


def test_broken_files_are_refused_in_one_line(tmp_path: Path) -> None:
    """Every kind of file with something odd in it: it is read, and then it encodes, or one line says why not."""
    rng = random.Random(6)
    bases = [gemma_like(), *(content_of(name) for name in ("NFC", "byte-level", "Unigram", "WordPiece", "WordLevel"))]
    odd = (None, True, -1, 2**40, 1.5, "", "x", "\ud800", [], ["a", "b"], {}, {"type": "Nope"}, {"Regex": "("})
    lines = []
    for _ in range(150):
        content = json.loads(json.dumps(rng.choice(bases)))
        _break(content, rng.choice(odd), rng)
        try:
            tokenizer = Gemma3Tokenizer.from_local_path(write(tmp_path, content))
            assert isinstance(tokenizer.decode(tokenizer.encode("x \U0001f9ff<bos>", add_bos=True)), str)
        except TokenizerError as error:
            lines.append(str(error))
    assert len(lines) > 50
    assert all(line.isprintable() and len(line) < 600 for line in lines)


def _break(content: Content, odd: object, rng: random.Random) -> None:
    """Put something odd in a random place."""
    here: object = content
    while True:
        key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))  # type: ignore[call-overload, arg-type]
        below = here[key]  # type: ignore[index]
        if not isinstance(below, dict | list) or not below or rng.random() < 0.2:
            here[key] = odd  # type: ignore[index]
            return
        here = below
