"""What the engine asks of a model: run one batch, and say in plain values what came out.

The seam between scheduling and computing. ``TorchRunner`` is the reference; whatever else computes obeys the same
definition of sampling, ``engine/sampling_params.py``. Engine thread only.

A sequence may bring drafts, guesses at its next tokens. All rows of a step are computed at once, and the row of each
draft chooses by the same definition as if the drafts up to it were output. What the first row chose is a new token; if
it equals the first draft, so is what that draft's row chose, and so on. So drafts never change what is said. K and V of
a draft that was wrong stay behind in their slots, which are written again when that position is computed.
"""

from collections import abc
from dataclasses import dataclass
from typing import Protocol

from engine.batch import Batch, ScheduledSequence
from engine.block_copies import BlockCopy
from engine.outputs import TokenLogprob


class Sampled(Protocol):
    """What one row chose, or was asked about. The native core answers in this shape; ``SampledToken`` is it in Python.

    ``logprob``, ``rank`` and ``top`` mean something only if they were asked for. If ``is_finite`` is false nothing else counts.
    """

    @property
    def token_id(self) -> int: ...
    @property
    def is_finite(self) -> bool: ...
    @property
    def logprob(self) -> float: ...
    @property
    def rank(self) -> int: ...
    @property
    def top(self) -> abc.Sequence[tuple[int, float]]: ...


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A ``Sampled`` of a runner in Python."""

    token_id: int
    is_finite: bool = True
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    rank: int = 0


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """What a step brought one scheduled sequence.

    Attributes:
        token_ids: its new tokens, one or more if the step samples.
        logprobs: of each new token, if the sequence asked.
        prompt_logprobs: of ``prompt_targets``.
        untold_logprobs: of ``untold_targets``.
        is_finite: false if it should have a token and has none, because its logits are not finite.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    untold_logprobs: tuple[TokenLogprob, ...] = ()
    is_finite: bool = True


def result_of(item: ScheduledSequence, rows: abc.Sequence[Sampled]) -> SequenceResult:
    """``rows``: the answers to ``item.prompt_targets``, to ``item.untold_targets``, then to ``item.sampling_rows``.

    Of the latter those up to and including the first token that is not its draft are kept. A row that is not finite
    fails the sequence if it is the first; else it is left to the step that computes it again.
    """
    num_prompt_targets = len(item.prompt_targets)
    num_targets = num_prompt_targets + len(item.untold_targets)
    samples = len(rows) > num_targets
    kept = _until_refuted(rows[num_targets:], item.draft_token_ids) if samples else []
    return SequenceResult(
        token_ids=tuple([row.token_id for row in kept]),
        logprobs=None if item.seq.params.logprobs is None else _logprobs(kept),
        prompt_logprobs=_logprobs(rows[:num_prompt_targets]),
        untold_logprobs=_logprobs(rows[num_prompt_targets:num_targets]),
        is_finite=bool(kept) or not samples,
    )


def _until_refuted(rows: abc.Sequence[Sampled], drafts: abc.Sequence[int]) -> list[Sampled]:
    kept: list[Sampled] = []
    for row, draft in zip(rows, [*drafts, None], strict=True):
        if not row.is_finite:
            break
        kept.append(row)
        if row.token_id != draft:
            break
    return kept


def _logprobs(rows: abc.Sequence[Sampled]) -> tuple[TokenLogprob, ...]:
    return tuple([TokenLogprob(row.token_id, row.logprob, tuple(row.top), row.rank) for row in rows])


class ModelRunner(Protocol):
    """Owns the KV storage and the model."""

    def copy_block(self, copy: BlockCopy) -> None:
        """Copy K and V of all layers of a pool; done before the step that writes next."""

    def release_blocks(self, block_ids: abc.Sequence[int], *, is_sliding: bool) -> None:
        """What these blocks of a pool hold will not be read: their memory may be given back until they are written."""

    def run(self, batch: Batch) -> list[SequenceResult]:
        """Compute the batch, writing K and V into the blocks of each sequence: a result for each of ``batch.scheduled``.

        Running the same batch again is harmless.
        """
