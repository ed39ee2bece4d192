"""Token types and scores as other tools write them: each gives the ids of Google's own vocabulary."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gemma3.errors import TokenizerError
from gemma3.files.gguf import GGUFFile, GGUFNumbers, GGUFStrings
from gemma3.text.gguf_vocabulary import vocabulary_of_gguf
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.vocabulary import Vocabulary
from tests.gemma3 import tiny
from tests.gemma3.gguf_files import gguf_bytes

NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6
FIRST_LEARNT, FIRST_TAB = 494, 255_968
ADDED = frozenset((*range(238), *range(FIRST_TAB, 262_144)))
SPECIAL = frozenset((0, 1, 2, 3, 105, 106, 255_999, 256_000))  # as in Google's tokenizer.json


@dataclass
class Written:
    """What a tool writes of the real vocabulary."""

    pieces: list[str]
    types: NDArray[np.int32] | None
    scores: NDArray[np.float32] | None

    def read(self) -> Vocabulary:
        metadata: dict[str, object] = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": self.pieces}
        arrays = {"tokenizer.ggml.token_type": self.types, "tokenizer.ggml.scores": self.scores}
        metadata |= {key: array for key, array in arrays.items() if array is not None}
        return vocabulary_of_gguf(GGUFFile(gguf_bytes(metadata, {}), name="x.gguf"))


@pytest.fixture(scope="module")
def llama_cpp(embedded_gguf: Path) -> Written:
    file = GGUFFile.open(embedded_gguf)
    types, scores = (file.get(f"tokenizer.ggml.{key}", GGUFNumbers).tolist() for key in ("token_type", "scores"))
    pieces = file.get("tokenizer.ggml.tokens", GGUFStrings).tolist()
    return Written(pieces, np.array(types, np.int32), np.array(scores, np.float32))


def ollama(written: Written) -> None:
    """``parseSentencePiece`` of convert/tokenizer_spm.go."""
    added = np.isin(np.arange(262_144), list(ADDED))
    is_control = np.isin(np.arange(262_144), list(SPECIAL))
    written.types[added] = np.where(is_control, CONTROL, NORMAL)[added]
    written.scores[added] = 0.0
    written.pieces[:] = [piece.replace(" ", "\u2581") for piece in written.pieces]


def placeholders_unused(written: Written) -> None:
    written.types[[i for i, piece in enumerate(written.pieces) if piece.startswith("<unused")]] = UNUSED


def hf_vocab(written: Written) -> None:
    """``LlamaHfVocab`` of the gguf package: what is not special is normal, and all have one score."""
    written.types[[i for i in ADDED if i not in SPECIAL]] = NORMAL
    written.scores[:] = -1000.0


def all_control(written: Written) -> None:
    written.types[list(ADDED)] = CONTROL


def all_user_defined(written: Written) -> None:
    written.types[list(ADDED)] = USER_DEFINED


def no_types(written: Written) -> None:
    written.types = None


def no_scores(written: Written) -> None:
    written.scores = None
    placeholders_unused(written)


def nothing(written: Written) -> None:
    written.types = written.scores = None


TOOLS = (ollama, placeholders_unused, hf_vocab, all_control, all_user_defined, no_types, no_scores, nothing)


@pytest.mark.parametrize("tool", [lambda _: None, *TOOLS], ids=["llama_cpp", *(tool.__name__ for tool in TOOLS)])
def test_other_tools_give_googles_added_and_control_tokens(llama_cpp: Written, tool: Callable[[Written], None]) -> None:
    written = Written(list(llama_cpp.pieces), llama_cpp.types.copy(), llama_cpp.scores.copy())
    tool(written)
    vocabulary = written.read()
    assert vocabulary.pieces[168 - 30 + 1] == "\u2581\u2581\u2581"
    assert vocabulary.added_ids == ADDED
    assert vocabulary.control_ids == SPECIAL
    assert not vocabulary.unused_ids


# A small vocabulary: the control tokens, the placeholders, the bytes, and a few pieces more.

LEARNT = ["a", "b", "ab", "ba"]


def small(more: dict[str, tuple[int, float]]) -> Gemma3Tokenizer:
    """``more``: type and score of each piece behind the learnt ones."""
    base = [piece for piece, _ in sorted(tiny.byte_tokenizer()["model"]["vocab"].items(), key=lambda item: item[1])]
    pieces = [*base, *LEARNT, *more]
    types = [BYTE if piece.startswith("<0x") else CONTROL for piece in base]
    types += [NORMAL] * len(LEARNT) + [kind for kind, _ in more.values()]
    scores = [*[0.0] * len(base), -0.0, -1.0, -2.0, -3.0, *(score for _, score in more.values())]
    written = Written(pieces, np.array(types, np.int32), np.array(scores, np.float32))
    return Gemma3Tokenizer(written.read())


BASE = tiny.VOCAB


def test_padding_pieces_have_a_text_that_nothing_becomes() -> None:
    tokenizer = small({"[PAD367]": (UNUSED, -10_000.0), "aa": (UNUSED, -10_000.0), "bb": (NORMAL, -4.0)})
    assert tokenizer.decode([BASE + 4, BASE + 5]) == "[PAD367]aa"
    assert BASE + 4 not in tokenizer.encode("[PAD367]", parse_special=True)
    assert tokenizer.encode("aa") == [BASE, BASE]
    assert tokenizer.encode("bb") == [BASE + 6]


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED])
@pytest.mark.parametrize("score", [0.0, -1000.0, -10_000.0])
def test_an_added_token_is_one_id_whatever_its_score(kind: int, score: float) -> None:
    tokenizer = small({"<my_token>": (kind, score), "[x]": (USER_DEFINED, -1000.0)})
    assert tokenizer.encode("ab<my_token>[x]b") == [BASE + 2, BASE + 4, BASE + 5, BASE + 1]
    assert tokenizer.decode([BASE + 4]) == "<my_token>"
    assert BASE + 4 not in tokenizer.special_ids


def test_a_control_token_of_a_fine_tune_is_no_text() -> None:
    tokenizer = small({"<tool_call>": (CONTROL, -1000.0)})
    assert BASE + 4 in tokenizer.special_ids
    assert BASE + 4 not in tokenizer.encode("<tool_call>")
    assert tokenizer.encode("<tool_call>", parse_special=True) == [BASE + 4]


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED, UNUSED])
def test_turns_of_another_type_stay_control_tokens(kind: int) -> None:
    base = [piece for piece, _ in sorted(tiny.byte_tokenizer()["model"]["vocab"].items(), key=lambda item: item[1])]
    types = [BYTE if piece.startswith("<0x") else kind if "turn" in piece else CONTROL for piece in base]
    written = Written(base, np.array(types, np.int32), np.zeros(len(base), np.float32))
    tokenizer = Gemma3Tokenizer(written.read())
    assert {105, 106} <= tokenizer.special_ids
    assert 106 not in tokenizer.encode("a<end_of_turn>b")
    assert tokenizer.encode("<end_of_turn>", parse_special=True) == [106]


def test_scores_that_rise_are_refused() -> None:
    with pytest.raises(TokenizerError, match=r"do not fall \(-3\.0 is followed by -2\.5\)"):
        small({"bb": (NORMAL, -2.5)})
