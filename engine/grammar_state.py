"""The grammar of one running sequence: what may follow, what must follow, whether it is complete.

Owns how a matcher of the library is driven and how its failures are told: whatever goes wrong here is a
``StepError``, which ends that sequence alone. A mask is never guessed: a matcher in an error state gives none.
Knows no library by name (``Matcher`` is the part of it that is used) and no text. Engine thread only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from engine.errors import StepError

T = TypeVar("T")

TOKENS_PER_STEP = 64


class Matcher(Protocol):
    """What is used of the library's matcher. After an error it stays in it, and its answers mean nothing."""

    def is_error(self) -> bool: ...

    def is_stopped(self) -> bool: ...

    def stop_reason(self) -> str: ...

    def rollback(self, num_tokens: int) -> bool: ...

    def consume_tokens(self, token_ids: list[int]) -> bool: ...

    def validate_tokens(self, token_ids: list[int]) -> int: ...

    def compute_ff_tokens(self) -> list[int]: ...

    def compute_bitmask(self) -> bytes: ...

    def deep_copy(self) -> Self: ...


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What holds for every grammar of an engine, or of one kind of grammar.

    ``num_mask_bytes`` is 4 * ceil(vocab / 32). An output ends with one of ``end_token_ids``, where the grammar
    allows the end. ``never_ids`` are in no mask, whatever the grammar says; empty where it cannot name an id.
    """

    num_mask_bytes: int
    end_token_ids: frozenset[int]
    never_ids: frozenset[int] = frozenset()
    never_bits: int = 0


class GrammarState:
    """Mutable."""

    def __init__(self, matcher: Matcher, rules: TokenRules) -> None:
        self._matcher = matcher
        self._rules = rules
        self._is_ended = False

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
        self._consume(list(token_ids))
        self._is_ended = token_ids[-1] in self._rules.end_token_ids

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
            bits = (int.from_bytes(bits, "little") & ~self._rules.never_bits).to_bytes(len(bits), "little")
        if bits.count(0) == len(bits):
            raise StepError("the grammar of this answer allows no token here.")
        return bits

    def masks(self, draft_token_ids: Sequence[int]) -> list[bytes]:
        """The mask now, and after each draft while the drafts are admitted: one more than drafts are admitted."""
        found = [self.mask()]
        for token_id in self._admitted(draft_token_ids):
            self._consume([token_id])
            found.append(self.mask())
        if len(found) > 1 and not self._matcher.rollback(len(found) - 1):
            raise self._failure()
        return found

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
        reason = _REASONS.get(self._matcher.stop_reason(), "it does not allow a token that was taken")
        return StepError(f"the grammar of this answer failed: {reason}.")


_REASONS = {
    "LexerTooComplex": "its strings or expressions are too complex for one step",
    "ParserTooComplex": "its rules are too complex for one step",
}
