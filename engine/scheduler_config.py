"""The bounds of one step, which scheduler and memory share.

Knows nothing of sequences or blocks. Immutable, so any thread may read it.
"""

from dataclasses import dataclass, replace

SMALL_CHUNK_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Bounds of one step.

    Attributes:
        max_num_batched_tokens: of all sequences together in one step.
        prefill_chunk_tokens: of one sequence in one step; also bounds the sliding blocks a prompt holds at a time.
        max_draft_rows: sequences that decode and their drafts together; 0 for no drafts. Up to about this many rows
            share the cost of reading the weights.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    prefill_chunk_tokens: int
    max_draft_rows: int = 24

    def in_small_steps(self) -> "SchedulerConfig":
        """For work that nobody waits for, so that whoever comes beside it waits no longer than a short step."""
        chunk = min(self.prefill_chunk_tokens, SMALL_CHUNK_TOKENS)
        budget = min(self.max_num_batched_tokens, self.max_num_seqs + chunk)
        return replace(self, prefill_chunk_tokens=chunk, max_num_batched_tokens=budget)

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_model_len", "prefill_chunk_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        smallest = self.max_num_seqs + self.prefill_chunk_tokens
        if self.max_num_batched_tokens < smallest:
            raise ValueError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} must be at least {smallest}: one token for each "
                f"of max_num_seqs={self.max_num_seqs}, one chunk of prefill_chunk_tokens={self.prefill_chunk_tokens}."
            )
