"""A runner without a model, and a small engine loop, for tests of the scheduler.

The K and V of a token is here a number that stands for all tokens up to it. The runner writes these numbers into
simulated blocks of both pools and, for every scheduled row, looks up each key that the row would attend to. So a wrong
block, a block reused too early or a prefix taken for another is found at once.
"""

from collections import abc
from dataclasses import dataclass, field

from engine.batch import Batch, SamplingRow, ScheduledSequence
from engine.block_copies import BlockCopy
from engine.block_pool import BlockTable
from engine.caller import Caller
from engine.kv_cache_manager import KVCacheManager
from engine.kv_cache_sizes import BlockCounts
from engine.outputs import FinishReason
from engine.prefill_pace import PrefillPace, Unpaced
from engine.runners.model_runner import SampledToken, SequenceResult, result_of
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler
from engine.scheduler_config import SchedulerConfig
from engine.sequence import Sequence, new_sequences
from engine.step_failures import StepFailures

VOCAB_SIZE = 3
EOS = 0


def content_after(content: int, token_id: int) -> int:
    return hash((content, token_id))


def sample(content: int, index: int) -> int:
    """The token that follows: the same prefix and the same place among the siblings give the same one."""
    return hash((content, index, 2)) % VOCAB_SIZE  # of numbers alone: a text's hash is another in each process


def generate_alone(prompt: abc.Sequence[int], index: int, num_tokens: int) -> list[int]:
    """What a sequence must say whatever else is served."""
    content = 0
    for token_id in prompt:
        content = content_after(content, token_id)
    output = []
    for _ in range(num_tokens):
        output.append(sample(content, index))
        content = content_after(content, output[-1])
    return output


def less(batch: Batch, seq: Sequence) -> Batch:
    """The same step without one of its sequences, as a failed step is run again."""
    return Batch(tuple(item for item in batch.scheduled if item.seq is not seq))


class FakeRunner:
    """Writes and checks the simulated K and V of a batch, and samples."""

    def __init__(self, counts: BlockCounts, *, block_size: int, window: int) -> None:
        self._block_size = block_size
        self._window = window
        self._global_blocks = [[0] * block_size for _ in range(counts.num_global)]
        self._sliding_blocks = [[0] * block_size for _ in range(counts.num_sliding)]
        self._contents: dict[int, list[int]] = {}

    def copy_block(self, copy: BlockCopy) -> None:
        blocks = self._sliding_blocks if copy.is_sliding else self._global_blocks
        blocks[copy.target] = blocks[copy.source].copy()

    def release_blocks(self, block_ids: abc.Sequence[int], *, is_sliding: bool) -> None:
        blocks = self._sliding_blocks if is_sliding else self._global_blocks
        for block_id in block_ids:
            blocks[block_id] = [0] * self._block_size  # no token's

    def run(self, batch: Batch) -> list[SequenceResult]:
        for item in batch.scheduled:
            self._write(self._global_blocks, item.seq.global_table, item)
            self._write(self._sliding_blocks, item.seq.sliding_table, item)
        for item in batch.scheduled:
            self._check(self._global_blocks, item.seq.global_table, item, first_key=0)
            first_visible_key = max(0, item.start - self._window + 1)
            self._check(self._sliding_blocks, item.seq.sliding_table, item, first_key=first_visible_key)
        return [self._result(item) for item in batch.scheduled]

    def _result(self, item: ScheduledSequence) -> SequenceResult:
        prompt_rows = [SampledToken(token_id) for token_id in [*item.prompt_targets, *item.untold_targets]]
        return result_of(item, prompt_rows + [SampledToken(self._sample(row)) for row in item.sampling_rows])

    def _contents_of(self, item: ScheduledSequence) -> list[int]:
        """Of all tokens up to the last row of the step, drafts included."""
        seq = item.seq
        known = self._contents.setdefault(seq.seq_id, [])
        for token_id in seq.token_ids[len(known) :]:
            known.append(content_after(known[-1] if known else 0, token_id))
        contents = known[: item.end]
        for token_id in item.draft_token_ids:
            contents.append(content_after(contents[-1], token_id))
        return contents

    def _write(self, blocks: list[list[int]], table: BlockTable, item: ScheduledSequence) -> None:
        contents = self._contents_of(item)
        for position in range(item.start, item.start + item.num_rows):
            block_id = table.block_ids[position // self._block_size - table.first_block]
            blocks[block_id][position % self._block_size] = contents[position]

    def _check(self, blocks: list[list[int]], table: BlockTable, item: ScheduledSequence, *, first_key: int) -> None:
        """The rows ``[start, end)`` together attend to the keys ``[first_key, end)``."""
        table_start, end = table.first_block * self._block_size, item.start + item.num_rows
        assert table_start <= first_key, "a visible key has left the table"
        held = [content for block_id in table.block_ids for content in blocks[block_id]]
        seen = held[first_key - table_start : end - table_start]
        assert seen == self._contents_of(item)[first_key:end], f"wrong keys for {item.seq.seq_id}"

    def _sample(self, row: SamplingRow) -> int:
        """From what the global pool holds for the row, not from what the sequence says of itself."""
        last = row.num_tokens - 1
        block_id = row.seq.global_table.block_ids[last // self._block_size]
        return sample(self._global_blocks[block_id][last % self._block_size], row.seq.index)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings of a scheduler with its memory."""

    max_num_seqs: int = 4
    max_num_batched_tokens: int = 64
    max_model_len: int = 64
    prefill_chunk_tokens: int = 16
    block_size: int = 4
    window: int = 8
    num_global: int = 200
    num_sliding: int = 200
    enable_prefix_caching: bool = True
    max_draft_rows: int = 0
    pace: PrefillPace = field(default_factory=Unpaced)

    def scheduler(self, kv: KVCacheManager) -> Scheduler:
        return Scheduler(self.scheduler_config(), kv, pace=self.pace)

    def kv_cache_manager(self) -> KVCacheManager:
        return KVCacheManager(
            BlockCounts(self.num_global, self.num_sliding),
            block_size=self.block_size,
            window=self.window,
        )

    def scheduler_config(self) -> SchedulerConfig:
        return SchedulerConfig(
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_model_len=self.max_model_len,
            prefill_chunk_tokens=self.prefill_chunk_tokens,
            max_draft_rows=self.max_draft_rows,
        )


@dataclass(frozen=True)
class Gain:
    """A sequence gained tokens; with ``max_tokens=0`` its prompt is computed and there are none."""

    seq: Sequence
    token_ids: tuple[int, ...]


class FakeEngine:
    """The loop around a scheduler: schedule, run, update, end. Checks every invariant after each of them."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.kv = setup.kv_cache_manager()
        self.scheduler = setup.scheduler(self.kv)
        counts = self.kv.counts
        self.runner = FakeRunner(counts, block_size=setup.block_size, window=setup.window)
        self.sequences: list[Sequence] = []
        self.finish_reasons: dict[int, FinishReason] = {}

    @property
    def has_work(self) -> bool:
        return self.scheduler.num_running + self.scheduler.num_waiting > 0

    def add(
        self, prompt: abc.Sequence[int], *, caller: str = "", gives_way: bool = False, **params: object
    ) -> list[Sequence]:
        """Raises what the scheduler raises; then nothing was added."""
        request_id = f"request-{len(self.sequences)}"
        plain = Caller(name=caller, prefix_salt="" if self.setup.enable_prefix_caching else request_id)
        sequences = new_sequences(
            request_id,
            prompt,
            params=SamplingParams(**params),  # type: ignore[arg-type]
            first_seq_id=len(self.sequences),
            max_model_len=self.setup.max_model_len,
            caller=plain.giving_way() if gives_way else plain,
        )
        for seq in sequences:
            self.scheduler.add(seq)
            self.sequences.append(seq)
        self.check()
        return sequences

    def abort(self, request_id: str) -> None:
        self.scheduler.abort([seq for seq in self.sequences if seq.request_id == request_id])
        self.check()

    def shrink(self) -> None:
        empty = self.scheduler.shrink_cache()
        self.runner.release_blocks(empty.global_block_ids, is_sliding=False)
        self.runner.release_blocks(empty.sliding_block_ids, is_sliding=True)
        self.check()

    def schedule(self) -> Batch:
        failures = StepFailures()
        batch = self.scheduler.schedule(failures)
        assert not failures.errors
        self.check()
        return batch

    def complete(self, batch: Batch, *, end_meanwhile: Sequence | None = None) -> list[Gain]:
        results = self.runner.run(batch)
        if end_meanwhile is not None:
            self.finish(end_meanwhile, FinishReason.ABORT)
        gains = []
        for item, result in zip(batch.scheduled, results, strict=True):
            if item.seq.is_finished:
                continue
            self.scheduler.update(item, result.token_ids)
            if result.token_ids or item.seq.num_uncomputed_tokens == 0:
                gains.append(Gain(item.seq, result.token_ids))
        self.check()
        for gain in gains:
            self._end_if_due(gain)
        return gains

    def step(self) -> list[Gain]:
        return self.complete(self.schedule())

    def _end_if_due(self, gain: Gain) -> None:
        seq = gain.seq
        if EOS in gain.token_ids and not seq.params.ignore_eos:
            num_surplus_tokens = len(gain.token_ids) - 1 - gain.token_ids.index(EOS)
            self.finish(seq, FinishReason.STOP, num_surplus_tokens=num_surplus_tokens)
        elif seq.has_reached_max_tokens:
            self.finish(seq, FinishReason.LENGTH)

    def finish(self, seq: Sequence, reason: FinishReason, *, num_surplus_tokens: int = 0) -> None:
        self.scheduler.finish(seq, num_surplus_tokens=num_surplus_tokens)
        self.finish_reasons[seq.seq_id] = reason
        self.check()

    def run_until_idle(self, max_steps: int = 10_000) -> int:
        for num_steps in range(max_steps):
            if not self.has_work:
                return num_steps
            self.step()
        raise AssertionError(f"still at work after {max_steps} steps")

    def check(self) -> None:
        self.scheduler.check_integrity()

    def check_idle(self) -> None:
        assert self.kv.num_used == BlockCounts(0, 0), "blocks have leaked"
        assert all(seq.is_finished for seq in self.sequences)
        assert (self.scheduler.num_running, self.scheduler.num_waiting) == (0, 0)
