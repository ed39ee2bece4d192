"""Token bytes to text for one sequence, as they come: no half characters, no part of a stop string.

Owns the few characters that are held back; knows tokens only as bytes, and not why a sequence ends. The work per token
depends on its own length and the stop strings', not on what came before. One thread uses each.
"""

import codecs
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _StopMatch:
    start: int
    end: int
    stop: str


class Detokenizer:
    """Turns tokens into text that is safe to show.

    Text waits while it is an incomplete UTF-8 character or may still be the beginning of a stop string. Invalid bytes
    become U+FFFD exactly as ``bytes.decode("utf-8", errors="replace")`` of the whole output would make them, so the
    pieces joined are that text, or what precedes the stop string in it.

    The stop string that is complete first wins, as if characters came one at a time (how they fall into tokens makes no
    difference); of two complete at the same character the longer wins. One that token number ``min_tokens`` or an
    earlier one completes is ordinary text.
    """

    def __init__(
        self,
        token_to_bytes: Callable[[int], bytes],
        *,
        stop: tuple[str, ...] = (),
        min_tokens: int = 0,
        lead: str = "",
    ) -> None:
        """``lead``: what the output begins with in any case, and nobody is to see."""
        self.stop_match: str | None = None
        self._token_to_bytes = token_to_bytes
        self._stop = stop
        self._min_tokens = min_tokens
        self._num_hidden = len(lead)
        self._num_tokens = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, token_id: int) -> str:
        """The text that became safe. Sets ``stop_match`` when the token completes a stop string: nothing follows it."""
        assert self.stop_match is None, "a token after the stop string"
        self._num_tokens += 1
        new_text = self._decoder.decode(self._token_to_bytes(token_id))
        if self._num_hidden:
            new_text = self._without_lead(new_text)
        if not self._stop:
            return new_text
        text = self._held + new_text
        match = self._find_stop(text, len(self._held)) if self._num_tokens > self._min_tokens else None
        if match is not None:
            self.stop_match, self._held = match.stop, ""
            return text[: match.start]
        num_safe = self._first_possible_stop(text)
        self._held = text[num_safe:]
        return text[:num_safe]

    def finish(self) -> str:
        """The rest, when the sequence ended otherwise: held text, and U+FFFD for an unfinished character."""
        if self.stop_match is not None:
            return ""
        rest = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return rest

    def _without_lead(self, text: str) -> str:
        num_hidden = min(self._num_hidden, len(text))
        self._num_hidden -= num_hidden
        return text[num_hidden:]

    def _find_stop(self, text: str, num_held: int) -> _StopMatch | None:
        """The first stop string that ends after the ``num_held`` characters that were searched before."""
        matches = []
        for stop in self._stop:
            start = text.find(stop, max(0, num_held + 1 - len(stop)))
            if start != -1:
                matches.append(_StopMatch(start, start + len(stop), stop))
        return min(matches, key=lambda match: (match.end, match.start), default=None)

    def _first_possible_stop(self, text: str) -> int:
        """Where the longest end of ``text`` begins that a stop string begins with; ``len(text)`` if none does."""
        first = len(text)
        for stop in self._stop:
            start = text.find(stop[0], max(0, len(text) + 1 - len(stop)), first)
            while start != -1 and not stop.startswith(text[start:]):
                start = text.find(stop[0], start + 1, first)
            if start != -1:
                first = start
        return first
