"""The reference runner: the model in plain torch over a paged KV cache, on the CPU or a GPU.

Owns the KV storage of both pools and the model. Shapes: ``T`` tokens of the step, ``R`` rows whose logits are
wanted, ``D`` hidden, ``V`` vocabulary, ``K`` KV heads, ``H`` head size. Engine thread only.
"""

from collections import abc
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor

from engine.batch import Batch, ScheduledSequence
from engine.block_copies import BlockCopy
from engine.block_pool import BlockTable
from engine.kv_cache_sizes import BlockCounts
from engine.runners.model_runner import SampledToken, SequenceResult, result_of
from engine.runners.torch_sampler import Asked, sample, token_logprobs
from gemma3.config import Gemma3TextConfig
from gemma3.torch_model.attention import Segment
from gemma3.torch_model.kv_cache import KeysValues
from gemma3.torch_model.model import Gemma3ForCausalLM

# Logits of a prompt are made this many rows at a time: 64 rows of 262,144 float32 are 64 MiB.
_LOGPROB_ROWS = 64


class TorchRunner:
    """Runs batches with ``Gemma3ForCausalLM``; ``vocab_size`` of the embedding's rows can be chosen, the first ones."""

    def __init__(self, model: Gemma3ForCausalLM, counts: BlockCounts, *, block_size: int, vocab_size: int) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._storage = KVStorage(model, counts, block_size=block_size)

    @torch.inference_mode()
    def copy_block(self, copy: BlockCopy) -> None:
        self._storage.copy_block(copy)

    def release_blocks(self, block_ids: abc.Sequence[int], *, is_sliding: bool) -> None:
        """Kept: tensors are given back whole."""

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[SequenceResult]:
        hidden_TD = self._forward(batch)
        parts = torch.split(hidden_TD, [item.num_rows for item in batch.scheduled])
        sampled = iter(self._sample(batch, parts))
        return [
            result_of(item, [*self._logprobs_of_targets(item, rows_TD), *islice(sampled, item.num_sampling_rows)])
            for item, rows_TD in zip(batch.scheduled, parts, strict=True)
        ]

    def _forward(self, batch: Batch) -> Tensor:
        token_ids: list[int] = []
        positions: list[int] = []
        segments = []
        for item in batch.scheduled:
            start_row = len(token_ids)
            token_ids += item.row_token_ids
            positions += range(item.start, item.start + item.num_rows)
            segments.append(Segment(start_row, len(token_ids), PagedKVCache(self._storage, item)))
        device = self._storage.device
        hidden_TD: Tensor = self._model(
            torch.tensor(token_ids, device=device), torch.tensor(positions, device=device), segments
        )
        return hidden_TD

    def _sample(self, batch: Batch, parts: abc.Sequence[Tensor]) -> list[SampledToken]:
        """What all sampling rows of the step choose, in batch order."""
        rows = [item.sampling_rows for item in batch.scheduled]
        if not any(rows):
            return []
        hidden_RD = torch.cat([part_TD[len(part_TD) - len(own) :] for part_TD, own in zip(parts, rows, strict=True)])
        return sample(self._logits(hidden_RD), list(chain.from_iterable(rows)))

    def _logits(self, hidden_RD: Tensor) -> Tensor:
        return self._model.compute_logits(hidden_RD)[:, : self._vocab_size]

    def _logprobs_of_targets(self, item: ScheduledSequence, rows_TD: Tensor) -> list[SampledToken]:
        """Of the prompt's tokens, then of untold ones: each by the row before it."""
        params = item.seq.params
        of_prompt = Asked(params.prompt_logprobs or 0, wants_rank=params.prompt_ranks)
        of_output = Asked(params.logprobs or 0, item.told_beside)
        return [
            *self._logprobs_of(item.prompt_targets, rows_TD, of_prompt),
            *self._logprobs_of(item.untold_targets, rows_TD[item.first_untold - 1 - item.start :], of_output),
        ]

    def _logprobs_of(self, token_ids: list[int], rows_TD: Tensor, asked: Asked) -> list[SampledToken]:
        targets = torch.tensor(token_ids, dtype=torch.int64, device=rows_TD.device)
        entries: list[SampledToken] = []
        for start in range(0, len(targets), _LOGPROB_ROWS):
            rows = slice(start, min(start + _LOGPROB_ROWS, len(targets)))
            logits_RV = self._logits(rows_TD[rows])
            entries += token_logprobs(logits_RV, targets[rows], [asked] * len(logits_RV))
        return entries


class KVStorage:
    """K and V of both pools: for each layer ``(slots, K, H)``, a block being ``block_size`` slots in a row."""

    def __init__(self, model: Gemma3ForCausalLM, counts: BlockCounts, *, block_size: int) -> None:
        config, weight = model.config, model.model.embed_tokens.weight
        self.device, self.block_size, self.window = weight.device, block_size, config.sliding_window
        self.is_sliding = [config.window(i) is not None for i in range(config.num_hidden_layers)]
        num_slots = {False: counts.num_global * block_size, True: counts.num_sliding * block_size}
        self.layers = [_layer_storage(num_slots[sliding], config, weight) for sliding in self.is_sliding]

    def copy_block(self, copy: BlockCopy) -> None:
        source, target = (
            slice(block * self.block_size, (block + 1) * self.block_size) for block in (copy.source, copy.target)
        )
        for layer, is_sliding in zip(self.layers, self.is_sliding, strict=True):
            if is_sliding is copy.is_sliding:
                for storage in (layer.k_SKH, layer.v_SKH):
                    storage[target] = storage[source]


def _layer_storage(num_slots: int, config: Gemma3TextConfig, like: Tensor) -> KeysValues:
    shape = (num_slots, config.num_key_value_heads, config.head_dim)
    return KeysValues(like.new_empty(shape), like.new_empty(shape))


@dataclass(frozen=True, slots=True)
class _Slots:
    """Where in a pool the new tokens (drafts too) go, and where all that they may see lies, oldest first."""

    new: Tensor
    visible: Tensor


class PagedKVCache:
    """The ``KVCache`` of one scheduled sequence for one step, over the blocks of its tables."""

    def __init__(self, storage: KVStorage, item: ScheduledSequence) -> None:
        first_visible = max(0, item.start - storage.window + 1)
        self._storage = storage
        self._slots = {
            False: _slots(item.seq.global_table, item, 0, storage),
            True: _slots(item.seq.sliding_table, item, first_visible, storage),
        }

    def update(self, layer_idx: int, k_TKH: Tensor, v_TKH: Tensor) -> KeysValues:
        layer, slots = self._storage.layers[layer_idx], self._slots[self._storage.is_sliding[layer_idx]]
        layer.k_SKH[slots.new] = k_TKH
        layer.v_SKH[slots.new] = v_TKH
        return KeysValues(layer.k_SKH[slots.visible], layer.v_SKH[slots.visible])


def _slots(table: BlockTable, item: ScheduledSequence, first_visible: int, storage: KVStorage) -> _Slots:
    size = storage.block_size
    block_ids = torch.tensor(table.block_ids, device=storage.device)
    slots = (block_ids[:, None] * size + torch.arange(size, device=storage.device)).flatten()
    offset = table.first_block * size
    start, end = item.start - offset, item.start + item.num_rows - offset
    return _Slots(slots[start:end], slots[first_visible - offset : end])
