"""Guesses at the next tokens, in what a step's known tokens leave over of rows, budget and blocks.

Decides how many each sequence may bring; what they are is ``prompt_lookup``'s. Knows no queue.
Engine thread only.
"""

from dataclasses import replace

from engine.batch import Batch, ScheduledSequence
from engine.kv_cache_manager import KVCacheManager
from engine.scheduler_config import SchedulerConfig
from engine.step_failures import StepFailures


def with_drafts(batch: Batch, config: SchedulerConfig, kv: KVCacheManager, failures: StepFailures) -> Batch:
    """Let those that decode guess, each in its share of the rows that are left; what one leaves
    goes to the next.
    """
    guesses = [_decodes(item) for item in batch.scheduled]
    num_left = sum(guesses)
    num_rows = min(config.max_num_batched_tokens - batch.num_rows, config.max_draft_rows - num_left)
    if num_rows < 1:
        return batch
    scheduled = []
    for item, may_guess in zip(batch.scheduled, guesses, strict=True):
        drafted = item
        if may_guess:
            with failures.of(item.seq.request_id):
                drafted = _draft(item, num_rows // num_left, config, kv)
            num_rows -= len(drafted.draft_token_ids)
            num_left -= 1
        scheduled.append(drafted)
    return Batch(tuple(scheduled))


def _draft(item: ScheduledSequence, max_drafts: int, config: SchedulerConfig, kv: KVCacheManager) -> ScheduledSequence:
    """Within every limit that holds for known tokens too, and with blocks that nobody needs now."""
    seq = item.seq
    max_drafts = min(
        max_drafts,
        config.prefill_chunk_tokens - item.num_scheduled_tokens,
        seq.max_num_tokens - seq.num_tokens - 1,  # the step samples one token more than are accepted
        kv.num_tokens_with_room(seq) - item.num_scheduled_tokens,
    )
    drafts = seq.lookup.propose(max_drafts)
    if not drafts.token_ids:
        return item
    has_room = kv.allocate(seq, item.num_scheduled_tokens + len(drafts.token_ids))
    assert has_room
    return replace(item, draft_token_ids=drafts.token_ids, has_predicted_drafts=drafts.are_predicted)


def _decodes(item: ScheduledSequence) -> bool:
    """One that closes in time takes each token apart."""
    return item.samples and item.seq.decodes and not item.seq.params.closes
