"""An engine whose model is a function of the last two tokens: everything but the transformer is real.

Its K and V are the tokens themselves, in simulated blocks of both pools, and the logits of a row are looked up by what the
blocks hold for its last two positions. So a wrong block changes what is said, and a row's logits depend on nothing but its
own tokens: two runs of a request must agree exactly, whatever else is done differently.
"""

from collections import abc

import torch
from torch import Tensor

from engine.batch import Batch, ScheduledSequence
from engine.block_copies import BlockCopy
from engine.engine_core import EngineCore
from engine.kv_cache_sizes import BlockCounts
from engine.outputs import RequestOutput
from engine.runners.model_runner import SampledToken, SequenceResult, result_of
from engine.runners.torch_sampler import Asked, sample, token_logprobs
from engine.sequence import Sequence
from tests.engine.fakes import Setup

VOCAB_SIZE = 29
EOS = 0
Logits = abc.Callable[[int, int, int], Tensor]  # of the token before the last, the last, and its position


def random_table(seed: int, *, scale: float) -> Logits:
    """``scale``: how sure the model is. At 3 it often goes on as it did the last time."""
    table = torch.randn(VOCAB_SIZE, VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * scale
    return lambda before, last, position: table[before, last]


def reciting(text: abc.Sequence[int]) -> Logits:
    """Says ``text[p]`` at every position p, and then its last token again and again."""
    sure_VV = torch.eye(VOCAB_SIZE) * 20.0
    return lambda before, last, position: sure_VV[text[min(position + 1, len(text) - 1)]]


def token_to_bytes(token_id: int) -> bytes:
    return b"" if token_id == EOS else bytes([ord("a") + token_id - 1]) if token_id <= 26 else b"\xc3"


class TableRunner:
    def __init__(self, logits: Logits, setup: Setup) -> None:
        self._logits = logits
        self._setup = setup
        self._global = [-1] * (setup.num_global * setup.block_size)
        self._sliding = [-1] * (setup.num_sliding * setup.block_size)
        self.num_rows_of_steps: list[int] = []

    def copy_block(self, copy: BlockCopy) -> None:
        size, pool = self._setup.block_size, self._sliding if copy.is_sliding else self._global
        pool[copy.target * size : (copy.target + 1) * size] = pool[copy.source * size : (copy.source + 1) * size]

    def release_blocks(self, block_ids: abc.Sequence[int], *, is_sliding: bool) -> None:
        """Nothing here is large."""

    def run(self, batch: Batch) -> list[SequenceResult]:
        for item in batch.scheduled:
            for position, token_id in enumerate(item.row_token_ids, start=item.start):
                self._global[self._slot(item.seq.global_table, position)] = token_id
                self._sliding[self._slot(item.seq.sliding_table, position)] = token_id
        self.num_rows_of_steps.append(batch.num_rows)
        return [
            result_of(item, self._prompt_logprobs(item) + self._untold_logprobs(item) + self._sampled(item))
            for item in batch.scheduled
        ]

    def _sampled(self, item: ScheduledSequence) -> list[SampledToken]:
        rows = item.sampling_rows
        return sample(torch.stack([self._row(row.seq, row.num_tokens - 1) for row in rows]), rows) if rows else []

    def _slot(self, table: object, position: int) -> int:
        size = self._setup.block_size
        return table.block_ids[position // size - table.first_block] * size + position % size  # type: ignore[attr-defined]

    def _row(self, seq: Sequence, position: int) -> Tensor:
        """Of the row at ``position``; both pools must agree on the last token and, inside the window, on the one before."""
        seen = [self._global[self._slot(seq.global_table, p)] for p in (position - 1, position) if p >= 0]
        for age in range(min(len(seen), self._setup.window)):
            assert self._sliding[self._slot(seq.sliding_table, position - age)] == seen[-1 - age]
        return self._logits(seen[-2] if len(seen) == 2 else 0, seen[-1], position)

    def _prompt_logprobs(self, item: ScheduledSequence) -> list[SampledToken]:
        targets = item.prompt_targets
        logits = [self._row(item.seq, item.start + i) for i in range(len(targets))]
        params = item.seq.params
        asked = [Asked(params.prompt_logprobs or 0, wants_rank=params.prompt_ranks)] * len(targets)
        return token_logprobs(torch.stack(logits), torch.tensor(targets), asked) if targets else []

    def _untold_logprobs(self, item: ScheduledSequence) -> list[SampledToken]:
        targets = item.untold_targets
        logits = [self._row(item.seq, item.first_untold - 1 + i) for i in range(len(targets))]
        asked = [Asked(item.seq.params.logprobs or 0, item.told_beside)] * len(targets)
        return token_logprobs(torch.stack(logits), torch.tensor(targets), asked) if targets else []


class TableEngine:
    """``core`` and ``runner`` as they are in the server, around a table."""

    def __init__(self, setup: Setup, logits: Logits) -> None:
        self.kv = setup.kv_cache_manager()
        self.core = EngineCore(
            setup.scheduler(self.kv),
            TableRunner(logits, setup),
            token_to_bytes=token_to_bytes,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=frozenset({EOS}),
            enable_prefix_caching=setup.enable_prefix_caching,
        )

    @property
    def runner(self) -> TableRunner:
        runner: TableRunner = self.core._runner  # type: ignore[assignment]
        return runner

    def step(self) -> list[RequestOutput]:
        result = self.core.step()
        for error in result.errors.values():
            raise error
        self.core.scheduler.check_integrity()
        return result.outputs

    def run(self, *, abort: str = "", after_steps: int = 0) -> dict[str, list[RequestOutput]]:
        """Until no request is left; what each of them was told."""
        outputs: dict[str, list[RequestOutput]] = {}
        while self.core.has_unfinished_requests:
            if len(self.runner.num_rows_of_steps) == after_steps:
                self.core.abort_request(abort)
            for output in self.step():
                outputs.setdefault(output.request_id, []).append(output)
        assert self.kv.num_used == BlockCounts(0, 0), "blocks have leaked"
        return outputs


def told(outputs: abc.Iterable[RequestOutput], num_sequences: int) -> list[tuple[object, ...]]:
    """All that a client learns of each of a request's sequences, however it fell into steps."""
    answers = []
    for index in range(num_sequences):
        deltas = [delta for output in outputs for delta in output.deltas if delta.index == index]
        answers.append(
            (
                "".join(delta.text for delta in deltas),
                [token_id for delta in deltas for token_id in delta.token_ids],
                [entry for delta in deltas for entry in delta.logprobs or ()],
                [delta.finish_reason for delta in deltas if delta.finish_reason],
                [delta.stop_reason for delta in deltas if delta.stop_reason is not None],
                [output.prompt_logprobs for output in outputs if output.prompt_logprobs is not None],
            )
        )
    return answers
