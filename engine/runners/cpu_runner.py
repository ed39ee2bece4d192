"""The native runner: hands a step to ``gemma3.cpu``, which owns the KV storage and samples beside the head.

Turns a batch into plain lists and the answer into plain values, and only what a row needs is built for it: a
greedy row costs a few microseconds. Sampling is by the definition in ``sampling_params.py``. Imports neither torch nor numpy.
Engine thread only.
"""

from collections import Counter
from itertools import islice

from engine.kv_cache_manager import BlockCounts
from engine.runners.model_runner import SequenceResult, result_of
from engine.sequence import Batch, SamplingRow, ScheduledSequence
from gemma3.cpu.model import CpuModel, Row, Segment


class CpuRunner:
    """Runs batches with ``CpuModel``."""

    def __init__(self, model: CpuModel, counts: BlockCounts) -> None:
        self._model = model
        model.allocate_kv(counts.num_global, counts.num_sliding)

    def run(self, batch: Batch) -> list[SequenceResult]:
        token_ids: list[int] = []
        segments: list[Segment] = []
        rows: list[Row] = []
        for item in batch.scheduled:
            rows += _rows(item, len(token_ids))
            token_ids += item.row_token_ids
            segments.append(_segment(item))
        answers = iter(self._model.step(token_ids, segments, rows))
        return [result_of(item, list(islice(answers, item.num_answers))) for item in batch.scheduled]


def _segment(item: ScheduledSequence) -> Segment:
    sliding = item.seq.sliding_table
    return Segment(item.start, item.num_rows, item.seq.global_table.block_ids, sliding.block_ids, sliding.first_block)


def _rows(item: ScheduledSequence, first_row: int) -> list[Row]:
    """The rows that are asked about the prompt, then those that choose a token."""
    num_logprobs = item.seq.params.prompt_logprobs or 0
    prompt_rows = [
        Row(row, num_logprobs=num_logprobs, target=target) for row, target in enumerate(item.prompt_targets, first_row)
    ]
    first_sampling_row = first_row + item.num_scheduled_tokens - 1
    return prompt_rows + [
        _sampling_row(wanted, row) for row, wanted in enumerate(item.sampling_rows, first_sampling_row)
    ]


def _sampling_row(wanted: SamplingRow, row: int) -> Row:
    """The row that chooses a token; whatever does not apply keeps its default, which costs nothing."""
    params = wanted.params
    settings: dict[str, object] = {}
    if params.temperature > 0:
        settings["temperature"] = params.temperature
        settings["top_k"], settings["top_p"], settings["min_p"] = params.top_k, params.top_p, params.min_p
        settings["uniform"] = wanted.uniform
    if params.repetition_penalty != 1.0:
        settings["repetition_penalty"] = params.repetition_penalty
        settings["seen"] = list(set(wanted.token_ids))
    if params.frequency_penalty or params.presence_penalty:
        counts = Counter(wanted.output_token_ids)
        settings["frequency_penalty"] = params.frequency_penalty
        settings["presence_penalty"] = params.presence_penalty
        settings["output_ids"], settings["output_counts"] = list(counts), list(counts.values())
    if params.logit_bias:
        settings["bias_ids"] = list(params.logit_bias)
        settings["bias_values"] = list(params.logit_bias.values())
    if wanted.num_output_tokens < params.min_tokens:
        settings["banned"] = list(wanted.seq.end_token_ids)
    if params.logprobs is not None:
        settings["num_logprobs"] = params.logprobs
    return Row(row, **settings)  # type: ignore[arg-type]
