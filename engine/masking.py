"""Which ids each row of a step may choose, where a grammar says so.

The masks are made last, when it is known which rows choose at all, and what was guessed for them:
of the guesses only those stay that the grammar admits. Knows no grammar from the inside. Engine
thread only.
"""

from dataclasses import replace

from engine.batch import Batch, ScheduledSequence
from engine.step_failures import StepFailures


def with_masks(batch: Batch, failures: StepFailures) -> Batch:
    """The same step with ``grammar_masks``; a sequence whose grammar fails ends with its request."""
    if all(item.seq.grammar is None for item in batch.scheduled):
        return batch
    scheduled = []
    for item in batch.scheduled:
        masked = item
        with failures.of(item.seq.request_id):
            masked = _masked(item)
        scheduled.append(masked)
    return Batch(tuple(scheduled))


def _masked(item: ScheduledSequence) -> ScheduledSequence:
    if item.seq.grammar is None or not item.samples:
        return item
    masks = tuple(item.seq.grammar.masks(item.draft_token_ids))
    return replace(item, draft_token_ids=item.draft_token_ids[: len(masks) - 1], grammar_masks=masks)
