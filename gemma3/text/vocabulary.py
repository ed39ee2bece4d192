"""What a tokenizer is built from: the pieces, and which of them are cut out of a text as they
stand.

Owns the pieces that make a vocabulary Gemma 3's. Knows nothing of files; each source of
vocabularies has a module of its own. Plain values, any thread.
"""

from dataclasses import dataclass, replace

from gemma3.errors import TokenizerError
from gemma3.text.bpe import BYTE_PIECES

# The turns tell Gemma 3 from Gemma 1 and 2, which have them at 106 and 107.
CONTROL_IDS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106}
# Without these nothing can be served, whatever the pipeline.
REQUIRED = ("<pad>", "<eos>", "<bos>")
_IMAGE_PLACEHOLDER = "<image_soft_token>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``pieces[token_id]``; the ids matched in a text as they stand; those of them that are control
    tokens; the ids that have a text, but that no text is encoded to; and those added ids that are
    looked for in what the others leave."""

    pieces: list[str]
    added_ids: frozenset[int]
    control_ids: frozenset[int]
    unused_ids: frozenset[int] = frozenset()
    late_ids: frozenset[int] = frozenset()

    def with_rows(self, num_rows: int) -> "Vocabulary":
        """The same for an embedding of so many rows: an added token without one is plain text in a text.

        But for the placeholder of images: Google's own files name it beside text models, which lack its row, and it is
        found with ``parse_special`` alone.
        """
        rowless = frozenset(i for i in self.added_ids if i >= num_rows and self.pieces[i] != _IMAGE_PLACEHOLDER)
        return replace(
            self,
            added_ids=self.added_ids - rowless,
            control_ids=self.control_ids - rowless,
            unused_ids=self.unused_ids | rowless,
            late_ids=self.late_ids - rowless,
        )


def check_is_gemma3(pieces: list[str], source: str) -> None:
    """Refuse other models' vocabularies: the text they make of Gemma's ids would be noise.

    Raises:
        TokenizerError: a control token is not where Gemma 3 has it, or the pieces of the 256 bytes are not there.
    """
    check_control_ids(pieces, source)
    # Not issubset, which would make a set of all pieces first.
    if len(set(BYTE_PIECES).intersection(pieces)) < len(BYTE_PIECES):
        raise TokenizerError(f"{source} is not Gemma 3's: it lacks pieces for the 256 bytes.")


def check_control_ids(pieces: list[str], source: str) -> None:
    """Raises: TokenizerError as ``check_is_gemma3`` for control tokens."""
    for piece, token_id in CONTROL_IDS.items():
        found = pieces[token_id] if token_id < len(pieces) else None
        if found != piece:
            raise TokenizerError(f"{source} is not Gemma 3's: token {token_id} is {found!a:.60}, not {piece}.")
