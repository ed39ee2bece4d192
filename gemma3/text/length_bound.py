"""How many tokens a text has at least, known from its characters alone.

Owns the argument: a token of n characters takes n characters of a text, so a text of N characters
has at least N / n tokens, n being the longest piece. Gemma's longest pieces, 31 characters, are
runs of one character (spaces, line breaks, tabs); no other piece has more than 16, so that the two
kinds are counted apart. Knows nothing of merging. Immutable, so any thread may use it.
"""

from collections.abc import Iterable


class LengthBound:
    """``pieces``: every piece of text that can become one token, in the characters of texts."""

    def __init__(self, pieces: Iterable[str]) -> None:
        runs, self._longest = [], 1
        for piece in pieces:
            if piece == piece[0] * len(piece):
                runs.append(piece)
            else:
                self._longest = max(self._longest, len(piece))
        long_runs = [piece for piece in runs if len(piece) > self._longest]
        self._longest_run = max(map(len, long_runs), default=self._longest)
        self._run_chars = {piece[0] for piece in long_runs}

    def min_num_tokens(self, text: str) -> int:
        """No tokenization of ``text`` has fewer tokens.

        Each character counts as one share of the longest piece it can be in, so the shares of one token are at most 1.
        """
        num_in_runs = sum(map(text.count, self._run_chars))
        shares = num_in_runs * self._longest + (len(text) - num_in_runs) * self._longest_run
        return -(-shares // (self._longest * self._longest_run))
