"""How few tokens a long text can have in a pipeline that is not Gemma's.

Owns the argument: where no stage leaves characters out, a token stands for at most as many
characters as the longest piece has. Then a text that cannot fit is refused without encoding it.
Plain functions, any thread.
"""

from typing import Any

from gemma3.text.bpe import BYTE_PIECES
from gemma3.text.json_vocabulary import TokenizerFile
from gemma3.text.own_pipeline import flat

# These make no text shorter; a normal form that composes makes one of four characters at most (U+1F82 and others).
_KEEPING = {"Prepend": 1, "Lowercase": 1, "NFD": 1, "NFKD": 1, "ByteLevel": 1, "NFC": 4, "NFKC": 4}
_SPLITTING = frozenset(("Split", "ByteLevel", "Metaspace", "Digits", "Punctuation", "UnicodeScripts"))
_NUM_BYTES = 256


def most_chars_per_token(file: TokenizerFile) -> int | None:
    """At most so many characters of a text become one token; ``None`` where there may be any number."""
    normalizers, pre_tokenizers = flat(file, "normalizer"), flat(file, "pre_tokenizer")
    keeps_all = (
        all(_keeps_length(stage) for stage in normalizers)
        and all(stage["type"] in _SPLITTING and stage.get("behavior") != "Removed" for stage in pre_tokenizers)
        and not any(token.lstrip or token.rstrip for token in file.added)
        and _has_a_token_for_everything(file, [*normalizers, *pre_tokenizers])
    )
    if not keeps_all:
        return None
    most = max(map(len, file.pieces))
    for stage in normalizers:
        most *= _KEEPING.get(stage["type"], 1)
    return most


def _keeps_length(stage: dict[str, Any]) -> bool:
    if stage["type"] != "Replace":
        return stage["type"] in _KEEPING
    pattern, content = stage.get("pattern"), stage.get("content")
    old = pattern.get("String") if isinstance(pattern, dict) else None
    return isinstance(old, str) and isinstance(content, str) and len(content) >= len(old)


def _has_a_token_for_everything(file: TokenizerFile, stages: list[dict[str, Any]]) -> bool:
    """An unknown word may become one token, however long it is; bytes have a token each."""
    is_byte_level = any(stage["type"] == "ByteLevel" for stage in stages)
    if is_byte_level and file.model.get("type") == "BPE":
        return sum(len(piece) == 1 for piece in file.model_ids) >= _NUM_BYTES
    return file.model.get("byte_fallback") is True and file.model_ids.keys() >= set(BYTE_PIECES)
