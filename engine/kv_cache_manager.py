"""Which KV cache blocks each sequence holds, over two pools: global layers and sliding layers.

Owns the block tables of all sequences and prefix reuse; knows block ids and never the K and V in them. Engine thread
only.

A query at position p of a sliding layer sees the keys ``(p - window, p]``, itself included. So once c tokens
are computed, no later query sees a key before ``c - window + 1``, and a sliding block that ends before it goes back to
its pool at once; there it stays findable until it is reused. Global layers keep the whole context.
"""

import sys
from dataclasses import dataclass, replace

from engine.block_copies import BlockCopy, PartialBlock
from engine.block_pool import LayerPool, PrefixKey
from engine.kv_cache_sizes import BlockCounts, blocks_for_one_sequence
from engine.sequence import Sequence

KEPT_SHARE = 1 / 16  # of a pool: the prefixes that were used last outlive an idle time
WHOLE_CONTEXT = sys.maxsize  # the window of a global layer


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """The longest reusable prefix of a sequence: ``num_tokens`` of them, in these blocks, and its prefix id."""

    num_tokens: int
    global_block_ids: list[int]
    sliding_block_ids: list[int]
    prefix_id: int | str
    partial: PartialBlock | None = None


@dataclass(frozen=True, slots=True)
class EmptyBlocks:
    """Blocks of both pools that nobody holds, and that hold nothing."""

    global_block_ids: list[int]
    sliding_block_ids: list[int]


class KVCacheManager:
    """Gives blocks to sequences and takes them back."""

    def __init__(self, counts: BlockCounts, *, block_size: int, window: int) -> None:
        if window < 1:
            raise ValueError(f"window={window} must be at least 1.")
        self.block_size = block_size
        self.window = window
        self.counts = counts
        self._global = LayerPool(counts.num_global, block_size=block_size, window=WHOLE_CONTEXT)
        self._sliding = LayerPool(counts.num_sliding, block_size=block_size, window=window)
        self._copies: list[BlockCopy] = []

    @property
    def usage(self) -> float:
        """0 to 1: how full the fuller of the two pools is."""
        used = self.num_used
        return max(used.num_global / self.counts.num_global, used.num_sliding / self.counts.num_sliding)

    @property
    def num_used(self) -> BlockCounts:
        return BlockCounts(self._global.pool.num_used, self._sliding.pool.num_used)

    def check_capacity(self, max_model_len: int, prefill_chunk_tokens: int) -> None:
        """Raise ``ValueError`` unless a sequence of ``max_model_len`` that is alone always finds its blocks."""
        needed = blocks_for_one_sequence(
            max_model_len, block_size=self.block_size, window=self.window, prefill_chunk_tokens=prefill_chunk_tokens
        )
        if self.counts.num_global < needed.num_global or self.counts.num_sliding < needed.num_sliding:
            raise ValueError(
                f"max_model_len={max_model_len} with prefill_chunk_tokens={prefill_chunk_tokens} needs {needed}; "
                f"the KV cache has {self.counts}."
            )

    def find_prefix(self, seq: Sequence) -> PrefixHit:
        """The longest prefix whose K and V are all there: of whole blocks, and of a scored prompt all of it."""
        return self._with_partial(seq, self._find_prefix(seq))

    def _find_prefix(self, seq: Sequence) -> PrefixHit:
        """The longest prefix of whole blocks, short of the last token, whose K and V are all there.

        A length L is reusable when the global blocks of ``[0, L)`` exist and the sliding blocks of
        ``[L - window + 1, L)``, the keys that the query at position L sees. Prompt logprobs need every row of the
        prompt: no reuse.
        """
        if seq.wants_prompt_logprobs:
            return PrefixHit(0, [], [], seq.caller.prefix_salt)
        global_ids, sliding_ids = self._find_blocks(seq)
        end = self._last_usable_end(sliding_ids)
        if end == 0:
            return PrefixHit(0, [], [], seq.caller.prefix_salt)
        first_visible = self._sliding.first_visible_block(end * self.block_size)
        visible_ids = [block_id for block_id in sliding_ids[first_visible:end] if block_id is not None]
        prefix_id = self._global.pool.prefix_id(global_ids[end - 1])
        return PrefixHit(end * self.block_size, global_ids[:end], visible_ids, prefix_id)

    def _with_partial(self, seq: Sequence, hit: PrefixHit) -> PrefixHit:
        """``hit`` with the rest of a scored prompt, if all before it was found."""
        key = self._partial_key(seq, hit.num_tokens, hit.prefix_id)
        if key is None or seq.num_reusable_tokens < seq.num_prompt_tokens:
            return hit
        global_id, sliding_id = self._global.pool.find(key), self._sliding.pool.find(key)
        if global_id is None or sliding_id is None:
            return hit
        return replace(hit, partial=PartialBlock(len(key.token_ids), global_id, sliding_id))

    def _partial_key(self, seq: Sequence, start: int, prefix_id: int | str) -> PrefixKey | None:
        """What the last block of a scored prompt contains, if it begins at ``start`` and is not full."""
        num_left = seq.num_prompt_tokens - start
        if not seq.scored_token_ids or not 0 < num_left < self.block_size:
            return None
        return PrefixKey(prefix_id, tuple(seq.token_ids[start : seq.num_prompt_tokens]))

    def _find_blocks(self, seq: Sequence) -> tuple[list[int], list[int | None]]:
        """The blocks of the longest prefix in the global pool, and for each its counterpart in the sliding pool."""
        global_ids: list[int] = []
        sliding_ids: list[int | None] = []
        parent: int | str = seq.caller.prefix_salt
        for block in range(seq.num_reusable_tokens // self.block_size):
            key = PrefixKey(parent, self._tokens_of(seq, block))
            block_id = self._global.pool.find(key)
            if block_id is None:
                break
            global_ids.append(block_id)
            sliding_ids.append(self._sliding.pool.find(key))
            parent = self._global.pool.prefix_id(block_id)
        return global_ids, sliding_ids

    def _last_usable_end(self, sliding_ids: list[int | None]) -> int:
        """The largest end such that the sliding blocks that a query right after it sees are all there."""
        end = len(sliding_ids)
        for block in reversed(range(len(sliding_ids))):  # the blocks [block + 1, end) are there
            if block < self._sliding.first_visible_block(end * self.block_size):
                break
            if sliding_ids[block] is None:
                end = block
        return end

    def _tokens_of(self, seq: Sequence, block: int) -> tuple[int, ...]:
        return tuple(seq.token_ids[block * self.block_size : (block + 1) * self.block_size])

    def has_room_for(self, seq: Sequence, hit: PrefixHit, *, running: list[Sequence]) -> bool:
        """Whether all known tokens of ``seq`` fit beside what the running ones still need for theirs.

        Later output is not counted: it may need a preemption. Hit blocks that another sequence holds cost nothing.
        """
        to_come = self._num_blocks_to_come([seq, *running])
        num_global = to_come.num_global - self._global.num_in_use(hit.global_block_ids)
        num_sliding = to_come.num_sliding - self._sliding.num_in_use(hit.sliding_block_ids)
        return num_global <= self._global.pool.num_free and num_sliding <= self._sliding.pool.num_free

    def _num_blocks_to_come(self, seqs: list[Sequence]) -> BlockCounts:
        return BlockCounts(
            sum(self._global.num_blocks_to_come(seq.global_table, seq.num_tokens) for seq in seqs),
            sum(self._sliding.num_blocks_to_come(seq.sliding_table, seq.num_tokens) for seq in seqs),
        )

    def attach(self, seq: Sequence, hit: PrefixHit) -> None:
        """Start ``seq`` with the blocks of ``hit``: they hold its first tokens, whatever becomes of the next step."""
        end = hit.num_tokens // self.block_size
        first_visible = end - len(hit.sliding_block_ids)
        self._global.attach(seq.global_table, hit.global_block_ids, first_block=0)
        self._sliding.attach(seq.sliding_table, hit.sliding_block_ids, first_block=first_visible)
        seq.num_computed_tokens = hit.num_tokens
        seq.prefix_id = hit.prefix_id
        if hit.partial is not None and self.allocate(seq, hit.partial.num_tokens):
            self._copy(seq, hit.partial)

    def _copy(self, seq: Sequence, partial: PartialBlock) -> None:
        """Have ``partial`` copied into the newest block of both tables.

        Whoever takes the source meanwhile does not write to it before the copy is made.
        """
        pairs = {
            False: (partial.global_block_id, seq.global_table.block_ids[-1]),
            True: (partial.sliding_block_id, seq.sliding_table.block_ids[-1]),
        }
        self._copies += [BlockCopy(seq.request_id, *pair, is_sliding) for is_sliding, pair in pairs.items()]
        seq.num_computed_tokens += partial.num_tokens
        self._sliding.release_invisible(seq.sliding_table, seq.num_computed_tokens)

    def take_copies(self) -> list[BlockCopy]:
        """All that were asked for since the last call, to be made in this order before anything is written."""
        copies, self._copies = self._copies, []
        return copies

    def allocate(self, seq: Sequence, num_new_tokens: int) -> bool:
        """Make room for the next tokens of ``seq`` in both pools, or change nothing and return False."""
        end = seq.num_computed_tokens + num_new_tokens
        num_global = self._global.num_missing_blocks(seq.global_table, end)
        num_sliding = self._sliding.num_missing_blocks(seq.sliding_table, end)
        if num_global > self._global.pool.num_free or num_sliding > self._sliding.pool.num_free:
            return False
        self._global.extend(seq.global_table, num_global)
        self._sliding.extend(seq.sliding_table, num_sliding)
        return True

    def num_tokens_with_room(self, seq: Sequence) -> int:
        """The largest ``num_new_tokens`` that ``allocate`` would grant now."""
        end_global = seq.global_table.end_block + self._global.pool.num_free
        end_sliding = seq.sliding_table.end_block + self._sliding.pool.num_free
        return min(end_global, end_sliding) * self.block_size - seq.num_computed_tokens

    def mark_computed(self, seq: Sequence, num_new_tokens: int) -> None:
        """K and V of the next tokens are written: publish the blocks they fill, release those no later query sees."""
        first_full_block = seq.num_computed_tokens // self.block_size
        seq.num_computed_tokens += num_new_tokens
        for block in range(first_full_block, seq.num_computed_tokens // self.block_size):
            key = PrefixKey(seq.prefix_id, self._tokens_of(seq, block))
            self._sliding.pool.publish(seq.sliding_table.block_ids[block - seq.sliding_table.first_block], key)
            seq.prefix_id = self._global.pool.publish(seq.global_table.block_ids[block], key)
        self._publish_partial(seq)
        self._sliding.release_invisible(seq.sliding_table, seq.num_computed_tokens)

    def _publish_partial(self, seq: Sequence) -> None:
        """Of the sequence that computes a scored prompt, which ends there: nothing more is written to its last block."""
        start = seq.num_computed_tokens // self.block_size * self.block_size
        if seq.num_computed_tokens == seq.num_prompt_tokens and len(seq.scored_token_ids) == 1:
            key = self._partial_key(seq, start, seq.prefix_id)
            if key is not None:
                self._global.pool.publish(seq.global_table.block_ids[-1], key)
                self._sliding.pool.publish(seq.sliding_table.block_ids[-1], key)

    def release_surplus(self, seq: Sequence) -> None:
        """Take back the blocks behind the known tokens: they were for drafts."""
        self._global.release_behind(seq.global_table, seq.num_tokens)
        self._sliding.release_behind(seq.sliding_table, seq.num_tokens)

    def free(self, seq: Sequence) -> None:
        """Take all blocks back. What was computed can be found again as a prefix while the blocks are not reused."""
        self._global.release_all(seq.global_table)
        self._sliding.release_all(seq.sliding_table)
        seq.num_computed_tokens = 0

    def shrink(self) -> EmptyBlocks:
        """Forget all but the latest prefixes. The blocks that hold nothing then need no memory."""
        pools = (self._global.pool, self._sliding.pool)
        return EmptyBlocks(*(pool.shrink(int(pool.num_blocks * KEPT_SHARE)) for pool in pools))

    def check_integrity(self, sequences: list[Sequence]) -> None:
        """Assert that tables, pools and progress agree; ``sequences`` are all that may hold blocks."""
        for seq in sequences:
            num_computed = seq.num_computed_tokens
            assert 0 <= num_computed <= seq.num_tokens, f"sequence {seq.seq_id} computed more tokens than it has"
            for layers, table in ((self._global, seq.global_table), (self._sliding, seq.sliding_table)):
                assert table.first_block == layers.first_visible_block(num_computed), "a block outside the window"
                assert layers.num_missing_blocks(table, num_computed) == 0, f"sequence {seq.seq_id} lacks blocks"
        self._global.check_integrity([seq.global_table for seq in sequences])
        self._sliding.check_integrity([seq.sliding_table for seq in sequences])
