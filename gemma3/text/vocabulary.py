"""What a tokenizer is built from: the pieces, and which of them are cut out of a text as they
stand.

Owns the pieces that make a vocabulary Gemma 3's. Knows nothing of files; each source of
vocabularies has a module of its own. Plain values, any thread.
"""

from dataclasses import dataclass

from gemma3.errors import TokenizerError
from gemma3.text.bpe import BYTE_PIECES

# The turns tell Gemma 3 from Gemma 1 and 2, which have them at 106 and 107.
CONTROL_IDS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``pieces[token_id]``; the ids matched in a text as they stand; those of them that are control
    tokens; and the ids that have a text, but that no text is encoded to."""

    pieces: list[str]
    added_ids: frozenset[int]
    control_ids: frozenset[int]
    unused_ids: frozenset[int] = frozenset()


def check_is_gemma3(pieces: list[str], source: str) -> None:
    """Refuse other models' vocabularies: the text they make of Gemma's ids would be noise.

    Raises:
        TokenizerError: a control token is not where Gemma 3 has it, or the pieces of the 256 bytes are not there.
    """
    for piece, token_id in CONTROL_IDS.items():
        found = pieces[token_id] if token_id < len(pieces) else None
        if found != piece:
            raise TokenizerError(f"{source} is not Gemma 3's: token {token_id} is {found!a:.60}, not {piece}.")
    if not set(BYTE_PIECES).issubset(pieces):
        raise TokenizerError(f"{source} is not Gemma 3's: it lacks pieces for the 256 bytes.")
