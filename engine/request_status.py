"""What a request does now, for people who watch: counts and a phase, never a token.

Owns the words alone: how they follow from a request's sequences is ``request_state``'s. Plain values,
for any thread.
"""

from dataclasses import dataclass
from enum import StrEnum


class RequestPhase(StrEnum):
    WAITING = "waiting"  # in the queue, or put back there
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """Counts are tokens, over all ``num_sequences`` of the request where they are of its output.

    Attributes:
        caller_name: as in ``Caller``.
        num_cached_tokens: how many of the prompt's were found in the prefix cache.
        num_computed_tokens: prompt and output whose K and V are there, of the sequence that is furthest.
        num_forced_tokens: how many of the output's a grammar left no choice about.
        num_accepted_draft_tokens: how many of the output's were guessed.
        max_output_tokens: ``None`` if only the context bounds it.
        age_s: since it arrived.
    """

    request_id: str
    caller_name: str
    phase: RequestPhase
    num_sequences: int
    num_prompt_tokens: int
    num_cached_tokens: int = 0
    num_computed_tokens: int = 0
    num_output_tokens: int = 0
    num_forced_tokens: int = 0
    num_accepted_draft_tokens: int = 0
    max_output_tokens: int | None
    age_s: float = 0.0
    is_constrained: bool
    is_scoring: bool
