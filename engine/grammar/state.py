"""The grammar of one running sequence: what may follow, what must follow, whether it is complete.

Owns how a matcher of the library is driven and how its failures are told: whatever goes wrong here is a
``StepError``, which ends that sequence alone. A mask is never guessed: a matcher in an error state gives none.
Knows no library and no text. Engine thread only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.errors import GrammarStepError, StepError
from engine.grammar.closing import ends, shorter_way
from engine.grammar.matcher import Matcher, is_too_complex

T = TypeVar("T")

TOKENS_PER_STEP = 64


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What holds for every grammar of an engine, or of one kind of grammar.

    ``num_mask_bytes`` is 4 * ceil(vocab / 32). An output ends with one of ``end_token_ids``, where the grammar
    allows the end. ``never_ids`` are in no mask, whatever the grammar says; empty where it cannot name an id.
    ``closing_ids``: of ``closing.CLOSING_CHARS``.
    """

    num_mask_bytes: int
    end_token_ids: frozenset[int]
    never_ids: frozenset[int] = frozenset()
    never_bits: bytes = b""
    closing_ids: tuple[int, ...] = ()


def _without(mask: bytes, never: bytes) -> bytes:
    import numpy as np  # numbers of Python take 20 times as long

    return (np.frombuffer(mask, np.uint32) & ~np.frombuffer(never, np.uint32)).tobytes()


class GrammarState:
    """Mutable."""

    def __init__(self, matcher: Matcher, rules: TokenRules) -> None:
        self._matcher = matcher
        self._rules = rules
        self._is_ended = False
        self._way: list[int] | None = None  # to the end, from here; kept for ``accept_within``

    @property
    def is_complete(self) -> bool:
        """Nothing may follow but the end."""
        return self._is_ended or self._told(self._matcher.is_stopped())

    def accept(self, token_ids: Sequence[int]) -> None:
        """Take tokens of the output, in order, sampled or forced; an end token completes it.

        Raises:
            StepError: the grammar does not allow one of them, or the matcher has failed.
        """
        if not token_ids:
            return
        if self._is_ended or any(i in self._rules.never_ids for i in token_ids):
            raise StepError("the grammar of this answer does not allow a token that was taken.")
        is_end = token_ids[-1] in self._rules.end_token_ids
        self._consume(list(token_ids[:-1] if is_end else token_ids))
        if is_end and not self.is_complete:  # a matcher that has stopped takes no end
            self._consume([token_ids[-1]])
        self._is_ended = is_end
        self._way = self._way_behind(token_ids)

    def accept_chosen(self, token_ids: Sequence[int]) -> bytes:
        """As ``accept``, of what rows chose. A byte for each token, 1 where there was no choice: of several, all but the
        first were guesses, and what is forced may be guessed too.
        """
        flags = b""
        while len(flags) < len(token_ids):
            begin = len(flags)
            self.accept(token_ids[begin : begin + 1])
            rest = list(token_ids[begin + 1 :])
            forced = self.forced(len(rest)) if rest and not self.is_complete else []
            num_forced = len(forced) if rest[: len(forced)] == forced else 0
            self.accept(forced[:num_forced])
            flags += b"\0" + b"\1" * num_forced
        return flags

    def closing(self, limit: int) -> list[int] | None:
        """A short way from here to the end, which may be an end token; None if none of ``limit`` tokens was found."""
        if self._is_ended:
            return []
        return self._told(self._way_from(self._matcher, limit))

    def accept_within(self, token_id: int, room: int) -> list[int]:
        """Take ``token_id`` if the answer can still end in the ``room`` tokens behind it; else the known way to the end.

        Returns what was taken. Where every token goes through here, forced ones through ``accept``, and ``closing`` knew
        a way that fits in the beginning, the answer is complete when the room is used up.

        Raises:
            StepError: as ``accept``; or no way is known.
        """
        known = self.closing(room + 1) if self._way is None else self._way
        way = self._way_after(token_id, room, known)
        if way is None and known is None:
            raise GrammarStepError("no way to the end of this answer is known that fits into max_tokens.")
        taken = [token_id] if way is not None else known or []
        self.accept(taken)
        self._way = way or []
        return taken

    def forced(self, limit: int) -> list[int]:
        """What must follow, at most ``limit`` tokens of the canonical tokenization; they are not accepted yet."""
        if self._is_ended or limit <= 0:
            return []
        return self._told(self._matcher.compute_ff_tokens())[:limit]

    def mask(self) -> bytes:
        """The allowed ids as bits: id i is bit i % 32 of little-endian word i // 32, ``ceil(vocab / 32)`` words.

        Raises:
            StepError: nothing is allowed, or the matcher has failed.
        """
        bits = self._told(self._matcher.compute_bitmask())[: self._rules.num_mask_bytes]
        if self._rules.never_bits:
            bits = _without(bits, self._rules.never_bits)
        if bits == bytes(len(bits)):
            raise GrammarStepError("the grammar of this answer allows no token here.")
        return bits

    def masks(self, draft_token_ids: Sequence[int]) -> list[bytes]:
        """The mask now, and after each draft while the drafts are admitted: one more than drafts are admitted.

        None is admitted that would complete the text: the row behind it could only choose an end that nobody needs.
        """
        found, num_taken = [self.mask()], 0
        for token_id in self._admitted(draft_token_ids):
            self._consume([token_id])
            num_taken += 1
            if self._matcher.is_stopped():
                break
            found.append(self.mask())
        if num_taken and not self._matcher.rollback(num_taken):
            raise self._failure()
        return found

    def _way_behind(self, token_ids: Sequence[int]) -> list[int] | None:
        num, way = len(token_ids), self._way
        return way[num:] if way is not None and way[:num] == list(token_ids) else None

    def _way_after(self, token_id: int, room: int, known: list[int] | None) -> list[int] | None:
        """To the end, behind ``token_id``, in ``room`` tokens."""
        if token_id in self._rules.end_token_ids:
            return []
        if known and known[0] == token_id:
            return known[1:]
        ahead = self._matcher.deep_copy()
        if not ahead.consume_tokens([token_id]):
            raise self._failure()
        # Within a text the way stays as it was. What is forced comes first, in its own tokens.
        if (
            known
            and len(known) <= room
            and not ahead.compute_ff_tokens()
            and ends(ahead.deep_copy(), known, self._end_id)
        ):
            return known
        return self._way_from(ahead, room)

    def _way_from(self, matcher: Matcher, limit: int) -> list[int] | None:
        return shorter_way(matcher, self._rules.closing_ids, end_id=self._end_id, limit=limit)

    @property
    def _end_id(self) -> int:
        return min(self._rules.end_token_ids)

    def _admitted(self, draft_token_ids: Sequence[int]) -> list[int]:
        refused = self._rules.end_token_ids | self._rules.never_ids
        end = next((at for at, i in enumerate(draft_token_ids) if i in refused), len(draft_token_ids))
        drafts = list(draft_token_ids[:end])
        if self._is_ended or not drafts:
            return []
        return drafts[: self._told(self._matcher.validate_tokens(drafts))]

    def _consume(self, token_ids: list[int]) -> None:
        for at in range(0, len(token_ids), TOKENS_PER_STEP):
            if at:
                self.mask()  # what the library may spend is set anew only here
            if not self._matcher.consume_tokens(token_ids[at : at + TOKENS_PER_STEP]):
                self._told(None)
                raise self._failure()

    def _told(self, answer: T) -> T:
        """``answer``, unless the matcher is in an error state."""
        if self._matcher.is_error():
            raise self._failure()
        return answer

    def _failure(self) -> StepError:
        """The library's words hold pieces of the grammar and of the answer: only their kind is told."""
        if is_too_complex(self._matcher.get_error()):
            return GrammarStepError("the grammar of this answer failed: it is too complex for one step.")
        return StepError("the grammar of this answer failed: it does not allow a token that was taken.")
