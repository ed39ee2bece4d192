"""What the engine asks of a model: run one batch, and say in plain values what came out.

The seam between scheduling and computing. ``TorchRunner`` is the reference; whatever else computes obeys the same definition of
sampling, ``engine/sampling_params.py``.

A sequence may bring drafts, guesses at its next tokens. All rows of a step are computed at once, and the row of each draft
chooses by the same definition as if the drafts up to it were output. What the first row chose is a new token; if it equals the
first draft, so is what that draft's row chose, and so on (``StepOutput.take``). So drafts never change what is said.
K and V of a draft that was wrong stay behind in their slots, which are written again when that position is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.outputs import TokenLogprob
from engine.sequence import Batch, ScheduledSequence


@dataclass(frozen=True, slots=True)
class SampledToken:
    """What one row chose. ``logprob`` is there if the sequence asked; nothing counts but ``is_finite`` if that is false."""

    token_id: int
    logprob: TokenLogprob | None = None
    is_finite: bool = True


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The result of one step, by ``seq_id``.

    Attributes:
        token_ids: one or more new tokens for each of ``batch.sampling`` that did not fail.
        logprobs: of each new token, for sequences that asked.
        prompt_logprobs: of the prompt tokens that follow this step's rows, for sequences that asked.
        failed: why a sequence has no token, though its neighbours have (its logits are not finite).
    """

    token_ids: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    prompt_logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def take(self, item: ScheduledSequence, sampled: Sequence[SampledToken]) -> None:
        """Keep what ``item.sampling_rows`` chose, up to and including the first token that is not its draft.

        A row that is not finite fails the sequence if it is the first; else it is left to the step that computes it again.
        """
        kept = _until_refuted(sampled, item.draft_token_ids)
        seq_id = item.seq.seq_id
        if not kept:
            self.failed[seq_id] = "the logits are not finite"
            return
        self.token_ids[seq_id] = [token.token_id for token in kept]
        if item.seq.params.logprobs is not None:
            self.logprobs[seq_id] = [token.logprob for token in kept if token.logprob is not None]

    def merge(self, other: "StepOutput") -> None:
        """Take in the result of another part of the same step."""
        self.token_ids.update(other.token_ids)
        self.logprobs.update(other.logprobs)
        self.prompt_logprobs.update(other.prompt_logprobs)
        self.failed.update(other.failed)


def _until_refuted(sampled: Sequence[SampledToken], drafts: Sequence[int]) -> list[SampledToken]:
    kept: list[SampledToken] = []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        if not token.is_finite:
            break
        kept.append(token)
        if token.token_id != draft:
            break
    return kept


class ModelRunner(Protocol):
    """Owns the KV storage and the model. Engine thread only."""

    def run(self, batch: Batch) -> StepOutput:
        """Compute the batch, writing K and V into the blocks of each sequence. Running the same batch again is harmless."""
