"""The native runner: hands a step to ``gemma3.cpu``, which owns the KV storage and samples beside the head.

Turns a batch into plain lists and the answer into plain values, and only what a row needs is built for it: a
greedy row costs a few microseconds. Sampling is by the definition in ``sampling_params.py``. Imports neither torch nor numpy.
Engine thread only.
"""

from collections import abc
from itertools import islice

from engine.batch import Batch, SamplingRow, ScheduledSequence
from engine.block_copies import BlockCopy
from engine.kv_cache_sizes import BlockCounts
from engine.runners.model_runner import SequenceResult, result_of
from engine.sampling_params import SETTINGS
from gemma3.cpu.model import CpuModel, RowRequest, Segment

# The settings that shape a row, and the values with which the core leaves the logits as they are.
_NEUTRAL = {name: getattr(RowRequest(0), name) for name, setting in SETTINGS.items() if setting.shapes_row}


class CpuRunner:
    """Runs batches with ``CpuModel``."""

    def __init__(self, model: CpuModel, counts: BlockCounts) -> None:
        self._model = model
        model.allocate_kv(counts.num_global, counts.num_sliding)

    def copy_block(self, copy: BlockCopy) -> None:
        self._model.copy_block(copy.source, copy.target, is_sliding=copy.is_sliding)

    def release_blocks(self, block_ids: abc.Sequence[int], *, is_sliding: bool) -> None:
        self._model.release_blocks(block_ids, is_sliding=is_sliding)

    def run(self, batch: Batch) -> list[SequenceResult]:
        token_ids: list[int] = []
        segments: list[Segment] = []
        rows: list[RowRequest] = []
        for item in batch.scheduled:
            rows += _rows(item, len(token_ids))
            token_ids += item.row_token_ids
            segments.append(_segment(item))
        answers = iter(self._model.step(token_ids, segments, rows))
        return [result_of(item, list(islice(answers, item.num_answers))) for item in batch.scheduled]


def _segment(item: ScheduledSequence) -> Segment:
    sliding = item.seq.sliding_table
    return Segment(item.start, item.num_rows, item.seq.global_table.block_ids, sliding.block_ids, sliding.first_block)


def _rows(item: ScheduledSequence, first_row: int) -> list[RowRequest]:
    """The rows that are asked about the prompt, then about untold output, then those that choose a token."""
    params = item.seq.params
    num_logprobs, wants_rank = params.prompt_logprobs or 0, params.prompt_ranks
    prompt_rows = [
        RowRequest(row, num_logprobs=num_logprobs, target=target, wants_rank=wants_rank)
        for row, target in enumerate(item.prompt_targets, first_row)
    ]
    first_untold_row = first_row + item.first_untold - 1 - item.start
    untold_rows = [_untold_row(item, row, target) for row, target in enumerate(item.untold_targets, first_untold_row)]
    first_sampling_row = first_row + item.num_scheduled_tokens - 1
    sampling_rows = [_sampling_row(wanted, row) for row, wanted in enumerate(item.sampling_rows, first_sampling_row)]
    return prompt_rows + untold_rows + sampling_rows


def _untold_row(item: ScheduledSequence, row: int, target: int) -> RowRequest:
    request = RowRequest(row, num_logprobs=item.seq.params.logprobs or 0, target=target)
    if item.told_beside:
        request.reported = item.told_beside
    return request


def _sampling_row(wanted: SamplingRow, row: int) -> RowRequest:
    """The row that chooses a token; whatever does not apply keeps its neutral value, which costs nothing."""
    params, seq = wanted.params, wanted.seq
    request = RowRequest(row, num_logprobs=-1 if params.logprobs is None else params.logprobs)
    for name, neutral in _NEUTRAL.items():
        value = getattr(params, name)
        if value != neutral:
            setattr(request, name, value)
    if params.temperature > 0:
        request.uniform = wanted.uniform
    if params.repetition_penalty != 1.0:
        request.seen = wanted.seen_token_ids
    if params.frequency_penalty or params.presence_penalty:
        request.output_counts = wanted.output_counts
    if params.logit_bias:
        request.logit_bias = list(params.logit_bias.items())
    if wanted.num_output_tokens < params.min_tokens:
        request.banned = list(seq.end_token_ids)
    if (mask := wanted.allowed_mask) is not None:
        request.allowed = mask
    if params.logprob_token_ids:
        request.reported = params.logprob_token_ids
    return request
