"""Files that describe Gemma's own pipeline are merged by ``gemma3.text.bpe``, however they were written, and only those."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from gemma3.text import own_pipeline
from gemma3.text.gemma_pipeline import GemmaPipeline
from gemma3.text.json_vocabulary import TokenizerFile
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.vocabulary import CONTROL_IDS
from tests.gemma3.other_pipelines import SPACE, Content, add, gemma_like, set_in_model, set_key, write
from tests.gemma3.tokenizer_corpus import SENTENCES, make_corpus

Write = Callable[[Content], bytes]


def _rename_unused(content: Content) -> None:
    vocab = content["model"]["vocab"]
    vocab["<tool>"] = vocab.pop("<unused5>")
    next(token for token in content["added_tokens"] if token["content"] == "<unused5>")["content"] = "<tool>"


def _forget_added(content: Content) -> None:
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in CONTROL_IDS]


def _merges_as_texts(content: Content) -> None:
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]


def _reorder(content: Content) -> None:
    content["model"] = dict(reversed(content["model"].items()))


CHANGES: dict[str, Callable[[Content], object]] = {
    "as it is": lambda content: None,
    "a renamed placeholder": _rename_unused,
    "a token behind": add("<tool>"),
    "a token that transformers adds": add("<tool>", normalized=True),
    "a control token": add("<|im_start|>", special=True),
    "no pre-tokenizer": set_key("pre_tokenizer", None),
    "no post-processor": set_key("post_processor", None),
    "unknown ones apart": set_in_model(fuse_unk=False),
    "dropout of 0": set_in_model(dropout=0.0),
    "merges as texts": _merges_as_texts,
    "merges not at the end": _reorder,
    "control tokens not added": _forget_added,
}
WRITERS: dict[str, Write] = {
    "ASCII": lambda content: json.dumps(content).encode(),
    "pretty": lambda content: json.dumps(content, indent=2, ensure_ascii=False).encode(),
    "compact": lambda content: json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode(),
    "sorted": lambda content: json.dumps(content, sort_keys=True).encode(),
    "byte order mark": lambda content: b"\xef\xbb\xbf" + json.dumps(content).encode(),
}


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    tools = ["<b<tool>", " <tool>x<tool><|im_start|>", "<unused5><unused6>", "<too", "</tool> \n\n\n <tool>"]
    made = make_corpus([*gemma_like()["model"]["vocab"], "<tool>"])
    return [*SENTENCES, *tools, *random.Random(8).sample(made, 400)]


@pytest.mark.parametrize("change", CHANGES)
def test_ids_without_the_library(
    tmp_path: Path, corpus: list[str], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gemma_like()
    CHANGES[change](content)
    library = Tokenizer.from_str(json.dumps(content))
    library.add_special_tokens(list(CONTROL_IDS))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tokenizers", None)
        tokenizer = Gemma3Tokenizer.from_local_path(write(tmp_path, content))
    assert tokenizer.pipeline_note == "Gemma's own pipeline"
    for parse_special in (True, False):
        library.encode_special_tokens = not parse_special
        for text in corpus:
            expected = library.encode(text, add_special_tokens=False).ids
            assert tokenizer.encode(text, parse_special=parse_special) == expected, text
            assert tokenizer.encode(text, add_bos=True, parse_special=parse_special) == [2, *expected]
            assert not parse_special or tokenizer.decode(expected, skip_special=False) == text.replace(SPACE, " ")


@pytest.mark.parametrize("writer", WRITERS)
def test_however_it_is_written(tmp_path: Path, writer: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(WRITERS[writer](gemma_like()))
    tokenizer = Gemma3Tokenizer.from_local_path(tmp_path)
    assert isinstance(tokenizer._pipeline, GemmaPipeline)
    assert tokenizer.decode(tokenizer.encode(SENTENCES[1])) == SENTENCES[1]


def test_a_fine_tune_as_transformers_saves_it(tmp_path: Path, corpus: list[str]) -> None:
    """Tokens that a trainer added: some of text, some of control."""
    tuned = PreTrainedTokenizerFast(tokenizer_file=str(write(tmp_path / "base", gemma_like()) / "tokenizer.json"))
    tuned.add_tokens(["<tool>", "</tool>"])
    tuned.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tuned.save_pretrained(tmp_path / "tuned")
    tokenizer = Gemma3Tokenizer.from_local_path(tmp_path / "tuned")
    assert isinstance(tokenizer._pipeline, GemmaPipeline)
    for text in corpus:
        assert tokenizer.encode(text, add_bos=True, parse_special=True) == tuned.encode(text)
    assert tuned.convert_tokens_to_ids("<|im_start|>") in tokenizer.special_ids


def test_a_changed_table_is_seen(tmp_path: Path) -> None:
    """Each merge that is gone, moved or doubled: the merger would not know."""
    whole = gemma_like()
    num_merges = len(whole["model"]["merges"])
    pipeline = GemmaPipeline(_opened(tmp_path, whole).vocabulary())
    assert own_pipeline.merges_follow(_opened(tmp_path, whole), pipeline)
    for at in random.Random(2).sample(range(1, num_merges), 12):
        for edit in (
            lambda merges, at: merges.pop(at),
            lambda merges, at: merges.insert(0, merges.pop(at)),
            lambda merges, at: merges.append(merges[at]),
        ):
            content = gemma_like()
            edit(content["model"]["merges"], at)
            assert not own_pipeline.merges_follow(_opened(tmp_path, content), pipeline)


def test_a_known_table_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's is known by its hash, together with the pieces that it belongs to."""
    file = _opened(tmp_path, gemma_like())
    pipeline = GemmaPipeline(file.vocabulary())
    ranked = own_pipeline._sha256("\n".join(pipeline.ranks))
    monkeypatch.setattr(own_pipeline, "_GOOGLES_MERGES", file.merges_sha256)
    monkeypatch.setattr(own_pipeline, "_GOOGLES_RANKED_PIECES", ranked)
    monkeypatch.setattr(file, "merges", lambda: pytest.fail("the table was read"))
    assert own_pipeline.merges_follow(file, pipeline)
    other = gemma_like()
    other["model"]["vocab"]["zqj"] = len(other["model"]["vocab"])
    other["model"]["vocab"]["zq"] = len(other["model"]["vocab"])
    file = _opened(tmp_path, other)
    assert own_pipeline.has_googles_merges(file)
    assert not own_pipeline.merges_follow(file, GemmaPipeline(file.vocabulary()))


def _opened(folder: Path, content: Content) -> TokenizerFile:
    return TokenizerFile.open(write(folder, content) / "tokenizer.json")
