"""The native runner: hands a step to ``gemma3.cpu``, which owns the KV storage and samples beside the head.

Turns a batch into plain lists and the answer into plain values, and only what a row needs is built for it: a
greedy row costs a few microseconds. Sampling is by the definition in ``sampling_params.py``. Imports neither torch nor numpy.
Engine thread only.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

from engine.kv_cache_manager import BlockCounts
from engine.outputs import TokenLogprob
from engine.runners.model_runner import SampledToken, StepOutput
from engine.runners.random_numbers import uniform
from engine.sequence import Batch, SamplingRow, ScheduledSequence, Sequence
from gemma3.cpu.model import CpuModel, Row, Sampled, Segment


class CpuRunner:
    """Runs batches with ``CpuModel``. ``end_token_ids(seq)`` cannot be sampled before ``min_tokens``."""

    def __init__(
        self, model: CpuModel, end_token_ids: Callable[[Sequence], frozenset[int]], counts: BlockCounts
    ) -> None:
        self._model = model
        self._end_token_ids = end_token_ids
        model.allocate_kv(counts.num_global, counts.num_sliding)

    def run(self, batch: Batch) -> StepOutput:
        token_ids: list[int] = []
        segments: list[Segment] = []
        rows: list[Row] = []
        for item in batch.scheduled:
            first_row = len(token_ids)
            token_ids += item.row_token_ids
            segments.append(_segment(item))
            rows += _prompt_rows(item, first_row)
            first_sampling_row = first_row + item.num_scheduled_tokens - 1
            rows += [
                self._sampling_row(wanted, first_sampling_row + num) for num, wanted in enumerate(item.sampling_rows)
            ]
        return _output(batch, self._model.step(token_ids, segments, rows))

    def _sampling_row(self, wanted: SamplingRow, row: int) -> Row:
        """The row that chooses a token; whatever does not apply keeps its default, which costs nothing."""
        params = wanted.params
        settings: dict[str, object] = {}
        if params.temperature > 0:
            assert params.seed is not None, "the engine draws a seed for requests without one"
            settings["temperature"] = params.temperature
            settings["top_k"], settings["top_p"], settings["min_p"] = params.top_k, params.top_p, params.min_p
            settings["uniform"] = uniform(params.seed, wanted.num_tokens, wanted.seq.index)
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
            settings["banned"] = list(self._end_token_ids(wanted.seq))
        if params.logprobs is not None:
            settings["num_logprobs"] = params.logprobs
        return Row(row, **settings)  # type: ignore[arg-type]


def _segment(item: ScheduledSequence) -> Segment:
    sliding = item.seq.sliding_table
    return Segment(item.start, item.num_rows, item.seq.global_table.block_ids, sliding.block_ids, sliding.first_block)


def _prompt_targets(item: ScheduledSequence) -> list[int]:
    """The prompt tokens that follow this step's rows, if their log probabilities are asked for."""
    if not item.seq.wants_prompt_logprobs:
        return []
    return item.seq.token_ids[item.start + 1 : min(item.end + 1, item.seq.num_prompt_tokens)]


def _prompt_rows(item: ScheduledSequence, first_row: int) -> list[Row]:
    num_logprobs = item.seq.params.prompt_logprobs or 0
    targets = _prompt_targets(item)
    return [Row(row, num_logprobs=num_logprobs, target=target) for row, target in enumerate(targets, start=first_row)]


def _output(batch: Batch, results: Iterable[Sampled]) -> StepOutput:
    """Results stand in the order in which ``run`` asked for them."""
    left, output = iter(results), StepOutput()
    for item in batch.scheduled:
        if item.seq.wants_prompt_logprobs and item.start < item.seq.num_prompt_tokens:
            targets = _prompt_targets(item)
            entries = [
                _logprob(target, result) for target, result in zip(targets, islice(left, len(targets)), strict=True)
            ]
            output.prompt_logprobs[item.seq.seq_id] = entries
        if item.samples:
            chosen = islice(left, 1 + len(item.draft_token_ids))
            output.take(item, [_sampled(result, item.seq) for result in chosen])
    return output


def _sampled(result: Sampled, seq: Sequence) -> SampledToken:
    logprob = None if seq.params.logprobs is None else _logprob(result.token_id, result)
    return SampledToken(result.token_id, logprob, result.is_finite)


def _logprob(token_id: int, result: Sampled) -> TokenLogprob:
    return TokenLogprob(token_id, result.logprob, tuple(result.top))
