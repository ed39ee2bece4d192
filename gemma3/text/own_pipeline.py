"""Whether a ``tokenizer.json`` describes Gemma's own pipeline, told by looking at the file.

Owns the comparison; ``GemmaPipeline`` may stand for a file exactly if nothing here differs, and
``LibraryPipeline`` runs every other one. Plain functions, any thread.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gemma3.text.bpe import BYTE_PIECES, SPACE
from gemma3.text.gemma_pipeline import GemmaPipeline
from gemma3.text.json_vocabulary import AddedToken, TokenizerFile
from gemma3.text.vocabulary import CONTROL_IDS

# Of Google's file, and of what transformers 5.24 saves: the bytes from "merges" to the end, and the pieces that merge,
# in order of ids and a line each. To look at all of its 514,906 merges takes 2 s.
_GOOGLES_MERGES = "a32b1dc7d6ccc70a520d17328e561906936f4bb5365017ba91d42bd9b38cce43"
_GOOGLES_RANKED_PIECES = "19bcb1a4079dc8b62e2dbcf486ba593416948ee324d446fe28a12e7192533160"

# What a file calls the stages of a pipeline, and their members where they are a ``Sequence``.
_MEMBERS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
_NORMALIZER = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
_DECODER = [
    {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_BOS_AND_TEXT = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]


def what_differs(file: TokenizerFile) -> str | None:
    """The first thing that is not as in Gemma's own file, merges aside; ``None`` if there is none."""
    normalizer, pre_tokenizer, post_processor, decoder = (flat(file, name) for name in _MEMBERS)
    if normalizer != _NORMALIZER:
        return f"its normalizer is {names(normalizer)}"
    if not all(map(_splits_nothing, pre_tokenizer)):
        return f"its pre-tokenizer is {names(pre_tokenizer)}"
    if len(post_processor) > 1 or not all(map(_is_bos_and_text, post_processor)):
        return f"its post-processor, {names(post_processor)}, does not add <bos> alone"
    if decoder != _DECODER:
        return f"its decoder is {names(decoder)}"
    odd = next((token for token in file.added if not _is_plain(token)), None)
    return _model_difference(file) if odd is None else f"its added token {odd.content!a:.60} has flags of its own"


def merges_follow(file: TokenizerFile, pipeline: GemmaPipeline) -> bool:
    """Whether the table has every split of a piece into two pieces, in order of ranks, the longest left part first.

    Then the pieces say all that the table says. Merges whose result is an added token never happen, as these were cut out.

    Raises:
        TokenizerError: the table is not one, or names a piece that the vocabulary lacks.
    """
    if has_googles_merges(file) and _sha256("\n".join(pipeline.ranks)) == _GOOGLES_RANKED_PIECES:
        return True
    ranks = pipeline.ranks
    return [merge for merge in file.merges() if "".join(merge) in ranks] == list(_splits(ranks, file.model_ids))


def has_googles_merges(file: TokenizerFile) -> bool:
    """Whether the table is Google's, byte for byte."""
    return file.merges_sha256 == _GOOGLES_MERGES


def _splits(ranks: Mapping[str, int], model_ids: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Runs of spaces first, as if all had one rank.

    A single character counts as a piece: merging begins with characters, be they pieces or not.
    """
    longest_run = max((len(piece) for piece, rank in ranks.items() if rank < 0), default=1)
    for left_run in range(longest_run - 1, 0, -1):
        for right_run in range(longest_run - left_run, 0, -1):
            yield SPACE * left_run, SPACE * right_run
    for piece in sorted(ranks, key=ranks.__getitem__):
        for cut in range(len(piece) - 1, 0, -1) if ranks[piece] >= 0 else ():
            left, right = piece[:cut], piece[cut:]
            if (cut == 1 or left in model_ids) and (cut == len(piece) - 1 or right in model_ids):
                yield left, right


def flat(file: TokenizerFile, name: str) -> list[dict[str, Any]]:
    """A stage of the pipeline, or the stages of a ``Sequence``; none if the file has none.

    Raises:
        TokenizerError: a stage is not an object with a type.
    """
    stage = file.content.get(name)
    stages = [] if stage is None else [stage]
    if isinstance(stage, dict) and stage.get("type") == "Sequence" and isinstance(stage.get(_MEMBERS[name]), list):
        stages = stage[_MEMBERS[name]]
    for each in stages:
        if not isinstance(each, dict) or not isinstance(each.get("type"), str):
            raise file.refusal(f"has {each!a:.60} in its {name}; it must be an object with a type")
    return stages


def names(stages: Sequence[dict[str, Any]]) -> str:
    """The kinds of some stages, for a message."""
    return " and ".join(f"{stage['type']!a:.60}".strip("'") for stage in stages) or "none"


def _splits_nothing(stage: dict[str, Any]) -> bool:
    """A text has no spaces left when it comes here."""
    return (stage.get("type"), stage.get("pattern"), stage.get("invert")) == ("Split", {"String": " "}, False)


def _is_bos_and_text(stage: dict[str, Any]) -> bool:
    if (stage.get("type"), stage.get("single")) != ("TemplateProcessing", _BOS_AND_TEXT):
        return False
    tokens = stage.get("special_tokens")
    bos = tokens.get("<bos>") if isinstance(tokens, dict) else None
    return isinstance(bos, dict) and bos.get("ids") == [CONTROL_IDS["<bos>"]]


def _is_plain(token: AddedToken) -> bool:
    """``normalized`` makes no difference but for spaces: these tokens are only looked for later."""
    is_changed = token.normalized and (" " in token.content or SPACE in token.content)
    return not (token.single_word or token.lstrip or token.rstrip or is_changed)


def _model_difference(file: TokenizerFile) -> str | None:
    model = file.model
    if model.get("type") != "BPE":
        return f"its model is {model.get('type')!a:.60}"
    if model.get("byte_fallback") is not True:
        return "its model has no byte_fallback"
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(key):
            return f"its model has {key}"
    return None if file.model_ids.keys() >= set(BYTE_PIECES) else "its vocabulary lacks pieces for the 256 bytes"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
