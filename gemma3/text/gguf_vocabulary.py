"""The vocabulary of a GGUF file, whichever tool wrote its token types.

Owns the reading of ``tokenizer.ggml.*``. A token type says how a piece comes about: merged
(normal), cut out of the text (user-defined, control), or never (unused). Tools disagree, so Gemma's
own pieces are known by name. Imports no numpy. Plain functions, any thread.
"""

import math
import re
from collections.abc import Sequence
from itertools import islice, pairwise
from operator import gt

from gemma3.errors import TokenizerError
from gemma3.files.gguf import GGUFFile, GGUFNumbers, GGUFStrings
from gemma3.text.bpe import BYTE_PIECES, SPACE
from gemma3.text.vocabulary import CONTROL_IDS, Vocabulary, check_is_gemma3

# What was found in files: llama.cpp writes ``<unused5>`` as control and the image tokens as
# user-defined, Google's tokenizer.json has it the other way round. Ollama's converter
# (convert/tokenizer_spm.go) writes every user-defined piece as normal, with the score 0. The
# ``gguf`` package's ``LlamaHfVocab`` gives all pieces the score -1000. llama.cpp pads a vocabulary
# that is shorter than the embedding with ``[PAD5]`` as unused (convert_hf_to_gguf.py).
#
# Values of tokenizer.ggml.token_type:
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
_ADDED = frozenset((_UNKNOWN, _CONTROL, _USER_DEFINED))
# What writers put where they know no score: sentencepiece and Ollama, llama.cpp for added and for
# padding pieces.
_NO_SCORES = frozenset((0.0, -1_000.0, -10_000.0))

_CONTROL_NAMES = frozenset((*CONTROL_IDS, "<start_of_image>", "<end_of_image>", "<image_soft_token>"))
_TAGS = (
    "table caption thead tbody tfoot tr th td h1 h2 h3 h4 h5 h6 blockquote strong em b i u s sub sup code "
    "a html body img span bbox ul li div iframe footer"
)
# Gemma's other added tokens, all 6,406: placeholders, and text that is never merged. No learnt
# piece looks like one.
_TEXT_NAME = re.compile(
    rf"<unused\d+>|<mask>|\[multimodal\]|\n+|\t+|[ {SPACE}]{{2,}}|</?(?:{_TAGS.replace(' ', '|')})>"
)


def vocabulary_of_gguf(file: GGUFFile) -> Vocabulary:
    """The pieces of an opened file and what each is for.

    Raises:
        TokenizerError: the vocabulary contradicts itself or is of another model.
        GGUFError: the file has no vocabulary.
    """
    model = file.get("tokenizer.ggml.model", str)
    if model != "llama":
        raise TokenizerError(f"tokenizer.ggml.model is {model[:40]!a}; Gemma 3 has 'llama'.")
    pieces = file.get("tokenizer.ggml.tokens", GGUFStrings).tolist()
    types = _numbers(file, "token_type", num=len(pieces), default=_NORMAL)
    scores = _numbers(file, "scores", num=len(pieces), default=0)
    added, unused = _added_and_unused(pieces, types, scores)
    for i in added:
        # Runs of spaces may be written with spaces; everything else has U+2581 already.
        pieces[i] = pieces[i].replace(" ", SPACE)
    check_is_gemma3(pieces, "the GGUF vocabulary")
    return Vocabulary(pieces, frozenset(added), frozenset(_control(pieces, types, added)), frozenset(unused))


def _numbers(file: GGUFFile, name: str, *, num: int, default: float) -> Sequence[float]:
    """One number for each piece; a file without that key says nothing of them."""
    key = f"tokenizer.ggml.{name}"
    if key not in file.metadata:
        return [default] * num
    found = file.get(key, GGUFNumbers).tolist()
    if len(found) != num:
        raise TokenizerError(
            f"the GGUF metadata has {num} tokens, but {len(found)} values of {key}; one each is needed."
        )
    return found


def _added_and_unused(
    pieces: Sequence[str], types: Sequence[float], scores: Sequence[float]
) -> tuple[list[int], list[int]]:
    """The ids that are cut out of a text, and those that no text becomes; the others are learnt, or
    bytes."""
    added = [i for i, kind in enumerate(types) if kind in _ADDED]
    normal_scores = [score for score, kind in zip(scores, types, strict=True) if kind == _NORMAL]
    if _UNUSED not in types and _are_ranks(normal_scores):
        return added, []  # as llama.cpp writes it
    unnamed = [i for i, kind in enumerate(types) if kind in (_NORMAL, _UNUSED)]
    by_name = {i for i in unnamed if pieces[i] in _CONTROL_NAMES or _TEXT_NAME.fullmatch(pieces[i])}
    unused = [i for i in unnamed if types[i] == _UNUSED and i not in by_name]
    learnt = by_name.union(unused).symmetric_difference(unnamed).difference(_byte_ids(pieces))
    unranked = _unranked(sorted(learnt), scores)
    _check_scores([scores[i] for i in sorted(learnt - unranked)])
    return [*added, *by_name, *unranked], unused


def _byte_ids(pieces: Sequence[str]) -> set[int]:
    names = frozenset(BYTE_PIECES)
    return {i for i, piece in enumerate(pieces) if piece in names}


def _are_ranks(scores: Sequence[float]) -> bool:
    """They fall, and the last is none of those that mean nothing."""
    return _fall(scores) and not _NO_SCORES.intersection(scores[-1:])


def _unranked(normal: Sequence[int], scores: Sequence[float]) -> set[int]:
    """Those of the normal pieces with a score that means none, and that does not lie between those
    beside it: added tokens.

    Where all have the same score the file has none at all.
    """
    values = [scores[i] for i in normal]
    if len(set(values)) <= 1:
        return set()
    before, after = [math.inf, *values[:-1]], [*values[1:], math.inf]  # such a score at the very end is none
    around = zip(normal, before, values, after, strict=True)
    return {i for i, left, value, right in around if value in _NO_SCORES and not left > value > right}


def _check_scores(scores: Sequence[float]) -> None:
    """A rank is an id here, so the scores must say the same: they fall from one learnt piece to the
    next."""
    if len(set(scores)) > 1 and not _fall(scores):
        before, after = next((a, b) for a, b in pairwise(scores) if not a > b)
        raise TokenizerError(
            f"the scores of the GGUF vocabulary do not fall ({before} is followed by {after}); Gemma 3's pieces lie in "
            "order of merging."
        )


def _fall(values: Sequence[float]) -> bool:
    return all(map(gt, values, islice(values, 1, None)))


def _control(pieces: Sequence[str], types: Sequence[float], added: Sequence[int]) -> set[int]:
    """Control tokens by name and by type; a placeholder or a tag that is typed as control stays
    text, as Google has it."""
    by_name = {i for i in added if pieces[i] in _CONTROL_NAMES}
    typed = (i for i in added if types[i] in (_CONTROL, _UNKNOWN))
    return by_name.union(i for i in typed if not _TEXT_NAME.fullmatch(pieces[i]))
