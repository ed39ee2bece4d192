"""Gemma's own pipeline: added tokens are cut out, spaces become U+2581, pieces are merged, bytes stand in for the rest.

Owns what a vocabulary means to the merging of ``gemma3.text.bpe``; knows nothing of the files it
came from. Nothing visible changes after construction, so any thread may use it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import count, takewhile

from gemma3.errors import TokenizerError
from gemma3.text.bpe import BYTE_PIECES, SPACE, AddedTokens, Merger
from gemma3.text.length_bound import LengthBound
from gemma3.text.vocabulary import CONTROL_IDS, Vocabulary


class GemmaPipeline:
    """``ranks``: the pieces that merging may make; a rank is the piece's id, and the lowest merges first."""

    note = "Gemma's own pipeline"

    def __init__(self, vocabulary: Vocabulary, *, ids: dict[str, int] | None = None) -> None:
        """``ids`` of the pieces are made if they are not at hand.

        Raises:
            TokenizerError: two pieces are the same, or one is empty.
        """
        self.pieces = vocabulary.pieces
        self.ids = ids or dict(zip(self.pieces, range(len(self.pieces)), strict=True))
        if len(self.ids) != len(self.pieces):
            raise TokenizerError(
                f"the vocabulary has {len(self.pieces)} pieces, only {len(self.ids)} of them different."
            )
        if "" in self.ids:
            raise TokenizerError(f"the vocabulary is damaged: token {self.ids['']} has no text.")
        self.control_ids = {name: self.ids[name] for name in CONTROL_IDS}
        # By name too: a file whose flags are wrong must not let a user's text open a turn.
        self.special_ids = vocabulary.control_ids.union(self.control_ids.values())
        self._byte_of = {self.ids[piece]: bytes([byte]) for byte, piece in enumerate(BYTE_PIECES)}
        self.added_ids = added = vocabulary.added_ids | self.special_ids
        self.ranks = self._ranks(added | vocabulary.unused_ids)
        self._merger = Merger(self.ids, self.ranks)
        stages = [added - vocabulary.late_ids, vocabulary.late_ids]
        self._added = self._added_tokens(stages)
        self._added_text_only = self._added_tokens([ids - self.special_ids for ids in stages])

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """As ``Pipeline.encode``."""
        token_ids = [self.ids["<bos>"]] if add_bos else []
        for part in _split(text, self._added if parse_special else self._added_text_only):
            if isinstance(part, int):
                token_ids.append(part)
            else:
                token_ids += self._merger.encode(part)
        return token_ids

    def token_to_bytes(self, token_id: int) -> bytes:
        """As ``Pipeline.token_to_bytes``."""
        byte = self._byte_of.get(token_id)
        return self.pieces[token_id].replace(SPACE, " ").encode() if byte is None else byte

    def text_bytes(self, token_ids: Sequence[int]) -> bytes:
        """As ``Pipeline.text_bytes``; a text begins as it goes on."""
        return b"".join(map(self.token_to_bytes, token_ids))

    def min_num_tokens(self, text: str) -> int:
        """As ``Pipeline.min_num_tokens``: told in milliseconds, without merging anything."""
        return self._length_bound.min_num_tokens(text)

    @cached_property
    def _length_bound(self) -> LengthBound:
        """40 ms, so only made when a text is long. A text may write a space as the vocabulary does, too."""
        pieces = [piece for token_id, piece in enumerate(self.pieces) if token_id not in self._byte_of]
        return LengthBound([*pieces, *(piece.replace(SPACE, " ") for piece in pieces if piece[0] == SPACE)])

    def _added_tokens(self, stages: Iterable[frozenset[int]]) -> list[AddedTokens]:
        return [AddedTokens({self.pieces[i]: i for i in token_ids}) for token_ids in stages if token_ids]

    def _ranks(self, unmerged_ids: frozenset[int]) -> dict[str, int]:
        """A piece's rank is its id: in Gemma's vocabulary the pieces lie in the order in which they were learnt.

        Only runs of spaces merge before everything else, the longest first, so that they grow greedily from the left.
        """
        ranks = self.ids.copy()
        for token_id in unmerged_ids.union(self._byte_of):
            ranks.pop(self.pieces[token_id])
        for num in takewhile(lambda num: SPACE * num in self.ids, count(2)):
            ranks[SPACE * num] = -num
        return ranks


def _split(text: str, stages: Sequence[AddedTokens]) -> Iterator[str | int]:
    """Stretches of text and the ids of added tokens between them; each stage looks at what the one before leaves."""
    if not stages:
        yield text
        return
    for part in stages[0].split(text):
        if isinstance(part, int) or len(stages) == 1:
            yield part
        else:
            yield from _split(part, stages[1:])
