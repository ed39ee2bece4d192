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
from sys import intern

SPACE = "\u2581"  # how a space is written inside the vocabulary
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]

_MAX_CACHED_CHARS = 32
_MAX_CACHED_WORDS = 1 << 15
_MAX_CACHED_WINDOWS = 64
_POSITION_BITS = 32
# No call into C (searching, splitting) takes more characters than this, 1 to 2 ms: it would keep every other thread waiting.
BLOCK_CHARS = 1 << 15
# A longer word is merged window by window: merging as a whole takes 190 bytes a character, and ever longer for each.
_WINDOW_CHARS = 1 << 10
_OVERLAP_PARTS = 16


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
        while at < len(text):
            found = self._starts.search(text, at, at + BLOCK_CHARS)
            if found is None:
                at += BLOCK_CHARS
                continue
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
        self._cached = lru_cache(_MAX_CACHED_WORDS)(self._word)
        self._cached_window = lru_cache(_MAX_CACHED_WINDOWS)(self._merge)

    def encode(self, text: str) -> list[int]:
        """The token ids of a stretch of text."""
        token_ids: list[int] = []
        for words in self._blocks(text):
            for word in words:
                token_ids += self._cached(word) if len(word) <= _MAX_CACHED_CHARS else self._word(word)
        return token_ids

    def _blocks(self, text: str) -> Iterator[list[str]]:
        """The words of a text, block by block. The last word of a block may go on in the next one."""
        split = self._word_ends.split
        begun: list[str] = []
        for at in range(0, len(text), BLOCK_CHARS):
            block = text[at : at + BLOCK_CHARS].replace(" ", self._written_space)
            words = split(block)
            if begun and len(split(begun[-1][-1] + block[0])) == 1:
                begun.append(words.pop(0))
            if words:
                yield ["".join(begun), *words[:-1]] if begun else words[:-1]
                begun = [words[-1]]
        yield ["".join(begun)]

    def _word(self, word: str) -> list[int]:
        if len(word) <= _WINDOW_CHARS:
            return [token_id for part in self._merge(word) for token_id in self._ids_of(part)]
        parts, token_ids = self._merge_long(word), list[int]()
        parts.reverse()
        while parts:  # to free a million at once takes 80 ms, in which no other thread runs
            token_ids += self._ids_of(parts.pop())
        return token_ids

    def _merge_long(self, word: str) -> list[str]:
        parts: list[str] = []
        for at in range(0, len(word), _WINDOW_CHARS):
            self._append(parts, word[at : at + _WINDOW_CHARS])
        return parts

    def _append(self, parts: list[str], text: str) -> None:
        """Merge ``text`` behind the parts of what stands before it.

        The last parts are merged again with it. That is exact if the part before them and the first new part stay apart
        when they are merged alone: parts of which all neighbours stay apart are what merging makes of the whole, because
        the first merge across a seam would also happen between the two parts that meet there. If they do not stay apart,
        more of the last parts are merged again.
        """
        num_again = _OVERLAP_PARTS
        while True:
            kept = max(0, len(parts) - num_again)
            merged = self._cached_window("".join(parts[kept:]) + text)
            seam = [parts[kept - 1], merged[0]] if kept else []
            if not seam or self._merge("".join(seam)) == seam:
                # One object for each piece: a text of 4 million characters has as many parts.
                parts[kept:] = map(intern, merged)
                return
            num_again *= 4

    def _merge(self, word: str) -> list[str]:
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
        return [part for part in parts if part]

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
