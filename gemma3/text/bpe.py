"""Byte-pair merging over a SentencePiece vocabulary, in plain Python.

Owns the algorithm: added tokens are cut out first, the text between them is merged pair by pair. Knows nothing of files.
A SentencePiece vocabulary needs no table of merges: a pair may merge if its concatenation is a piece, and the piece's own rank
says when. Loading the library's table of 514,906 pairs takes longer than importing this module, reading the vocabulary and
encoding a page together. Nothing changes after construction but a bounded cache, so any thread may use it.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

SPACE = "\u2581"  # how a space is written inside the vocabulary
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]

_MAX_CACHED_CHARS = 32
_MAX_CACHED_WORDS = 1 << 15
_POSITION_BITS = 32


class AddedTokens:
    """The pieces that are cut out of a text before anything is merged: the leftmost first, and of those the longest."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        lengths: dict[str, set[int]] = {}
        for piece in ids:
            lengths.setdefault(piece[0], set()).add(len(piece))
        self._lengths = {first: sorted(nums, reverse=True) for first, nums in lengths.items()}
        # One alternation of all 6,415 pieces would try them one by one at every "<".
        self._starts = re.compile("[" + re.escape("".join(lengths)) + "]" if lengths else "(?!)")

    def split(self, text: str) -> Iterator[str | int]:
        """The stretches of text between added tokens, and the ids of these, in order."""
        done = at = 0
        while found := self._starts.search(text, at):
            start = found.start()
            ends = (start + num for num in self._lengths[text[start]])
            at = next((end for end in ends if text[start:end] in self._ids), 0)
            if at:
                yield text[done:start]
                yield self._ids[text[start:at]]
                done = at
            at = at or start + 1
        yield text[done:]


class Merger:
    """Merges text into pieces. ``ids``: all pieces; ``ranks``: the pieces that merging may make, lowest rank first."""

    def __init__(self, ids: Mapping[str, int], ranks: Mapping[str, int]) -> None:
        self._ids, self._ranks = ids, ranks
        self._byte_ids = [ids[piece] for piece in BYTE_PIECES]
        self._written_space = SPACE if SPACE in ids else " "
        self._word_ends = _word_ends(ranks)
        self._cached = lru_cache(_MAX_CACHED_WORDS)(self._merge)

    def encode(self, text: str) -> Iterator[int]:
        """The token ids of a stretch of text."""
        for word in self._word_ends.split(text.replace(" ", self._written_space)):
            yield from self._cached(word) if len(word) <= _MAX_CACHED_CHARS else self._merge(word)

    def _merge(self, word: str) -> list[int]:
        """Merge neighbours, the lowest rank first and of equal ranks the leftmost, until no pair is a piece.

        The parts form a linked list: ``parts[i]`` begins at character ``i`` of the word, ``""`` once it was taken into its left
        neighbour. The heap holds ``rank << 32 | i`` for each pair; a pair that has changed since is recognised by its rank.
        """
        rank = self._ranks.get
        parts, size = list(word), len(word)
        left, right = list(range(-1, size - 1)), list(range(1, size + 1))
        heap = [(r << _POSITION_BITS) + i for i in range(size - 1) if (r := rank(word[i : i + 2])) is not None]
        heapify(heap)
        while heap:
            key = heappop(heap)
            i = key & (1 << _POSITION_BITS) - 1
            j = right[i]
            if not parts[i] or j == size or rank(parts[i] + parts[j]) != key >> _POSITION_BITS:
                continue
            parts[i], parts[j] = parts[i] + parts[j], ""
            after, before = right[j], left[i]
            right[i] = after
            if after < size:
                left[after] = i
                if (r := rank(parts[i] + parts[after])) is not None:
                    heappush(heap, (r << _POSITION_BITS) + i)
            if before >= 0 and (r := rank(parts[before] + parts[i])) is not None:
                heappush(heap, (r << _POSITION_BITS) + before)
        return [token_id for part in parts if part for token_id in self._ids_of(part)]

    def _ids_of(self, part: str) -> list[int]:
        """One id, or those of its bytes for a character that the vocabulary lacks."""
        token_id = self._ids.get(part)
        return [self._byte_ids[byte] for byte in part.encode()] if token_id is None else [token_id]


def _word_ends(ranks: Mapping[str, int]) -> re.Pattern[str]:
    """Matches between a character and a space where no piece reaches across, so that words can be merged apart and cached.

    In Gemma's vocabulary one piece has a space behind another character, ``>_</``: so words do not end behind ``>``.
    """
    reaching = [piece for piece in ranks if piece.rfind(SPACE) > 0]
    crossed = {before for piece in reaching for before, char in pairwise(piece) if char == SPACE != before}
    return re.compile(f"(?<=[^{SPACE}{re.escape(''.join(crossed))}])(?={SPACE})")
