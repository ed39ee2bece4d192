"""A pool of KV cache blocks: who holds which, which are free, and what the full ones contain.

``BlockPool`` owns block ids, reference counts and the index of published prefixes; a freed block stays findable until
it is handed out again, least recently used first. ``LayerPool`` adds the window of the layers it serves and works on
block tables. Neither knows sequences, or the K and V in the blocks. Engine thread only.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple


@dataclass(slots=True)
class BlockTable:
    """The blocks of one sequence in one pool: position ``p`` is in ``block_ids[p // block_size - first_block]``.

    ``first_block`` counts the leading blocks that have left the sliding window; in the global pool it stays 0.
    """

    block_ids: list[int] = field(default_factory=list)
    first_block: int = 0

    @property
    def end_block(self) -> int:
        """The table covers the blocks ``[first_block, end_block)`` of the sequence."""
        return self.first_block + len(self.block_ids)


def max_blocks_touched(num_tokens: int, block_size: int) -> int:
    """By a stretch of tokens that begins, at worst, with the last token of a block."""
    return -(-(num_tokens - 1) // block_size) + 1


class PrefixKey(NamedTuple):
    """What a full block contains: its tokens, and by ``parent`` everything before them.

    ``parent`` is the prefix id of the block before, or a salt for the first block: prefixes of different salts never
    meet. As a dict key it is hashed over the chain and compared by its tokens, and prefix ids are never used
    twice: two different prefixes that hash alike still differ as keys, so a collision costs time, never a wrong block.
    """

    parent: int | str
    token_ids: tuple[int, ...]


class BlockPool:
    """Hands out ``num_blocks`` blocks of ``block_size`` tokens each, every operation in constant time."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"num_blocks={num_blocks} and block_size={block_size} must be at least 1.")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._ref_counts = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))  # next to be reused first
        self._keys: list[PrefixKey | None] = [None] * num_blocks
        self._prefix_ids = [0] * num_blocks
        self._published: dict[PrefixKey, int] = {}
        self._num_publications = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def ref_count(self, block_id: int) -> int:
        return self._ref_counts[block_id]

    def ref_counts(self) -> dict[int, int]:
        """Of the blocks in use."""
        return {block_id: count for block_id, count in enumerate(self._ref_counts) if count}

    def allocate(self) -> int:
        """A block with one reference; whatever prefix it still held is forgotten. The pool must not be empty."""
        block_id, _ = self._free.popitem(last=False)
        self._forget(block_id)
        self._ref_counts[block_id] = 1
        return block_id

    def acquire(self, block_id: int) -> None:
        """One more reference to a block that ``find`` returned, free or in use."""
        if self._ref_counts[block_id] == 0:
            del self._free[block_id]
        self._ref_counts[block_id] += 1

    def release(self, block_id: int) -> None:
        """One reference less. At zero the block is free: last in line if it is findable, else next to be reused."""
        assert self._ref_counts[block_id] > 0, f"block {block_id} is released more often than it was taken"
        self._ref_counts[block_id] -= 1
        if self._ref_counts[block_id] == 0:
            self._free[block_id] = None
            if self._keys[block_id] is None:
                self._free.move_to_end(block_id, last=False)

    def publish(self, block_id: int, key: PrefixKey) -> int:
        """Make a full block findable, or one that nobody fills any further; call it only after its K and V are written.

        Returns the prefix id of ``key``.

        If another block with the same content is there already, that one stays and ``block_id`` remains private.
        """
        assert 0 < len(key.token_ids) <= self.block_size, "a block is published with what it contains"
        assert self._ref_counts[block_id] > 0, "only used blocks are published"
        assert self._keys[block_id] is None, f"block {block_id} is published already"
        holder = self._published.setdefault(key, block_id)
        if holder == block_id:
            self._num_publications += 1
            self._keys[block_id] = key
            self._prefix_ids[block_id] = self._num_publications
        return self._prefix_ids[holder]

    def shrink(self, num_kept: int) -> list[int]:
        """Forget the prefixes in free blocks, all but the ``num_kept`` that were used last.

        Returns the free blocks that hold nothing then. They are the next to be reused, lowest first: what is in use stays
        in few places.
        """
        findable = [block_id for block_id in self._free if self._keys[block_id] is not None]
        num_forgotten = max(0, len(findable) - num_kept)
        for block_id in findable[:num_forgotten]:
            self._forget(block_id)
        empty = sorted(block_id for block_id in self._free if self._keys[block_id] is None)
        self._free = OrderedDict.fromkeys([*empty, *findable[num_forgotten:]])
        return empty

    def _forget(self, block_id: int) -> None:
        key = self._keys[block_id]
        if key is not None:
            del self._published[key]
            self._keys[block_id] = None

    def find(self, key: PrefixKey) -> int | None:
        return self._published.get(key)

    def prefix_id(self, block_id: int) -> int:
        """The parent of the keys that follow this published block."""
        assert self._keys[block_id] is not None, f"block {block_id} is not published"
        return self._prefix_ids[block_id]

    def check_integrity(self) -> None:
        """Assert that every block is either free or used, and that the index finds exactly what the blocks hold."""
        unused = {block_id for block_id, count in enumerate(self._ref_counts) if count == 0}
        assert self._free.keys() == unused, f"free and used, or neither: {self._free.keys() ^ unused}"
        assert min(self._ref_counts) >= 0
        assert self.num_blocks - self._keys.count(None) == len(self._published), "a block has a key and is not findable"
        assert all(self._keys[block_id] == key for key, block_id in self._published.items()), "the index is wrong"
        prefix_ids = {self._prefix_ids[block_id] for block_id in self._published.values()}
        assert len(prefix_ids) == len(self._published), "two published prefixes share an id"


class LayerPool:
    """A pool and the window of its layers: all that differs between global and sliding layers."""

    def __init__(self, num_blocks: int, *, block_size: int, window: int) -> None:
        self.pool = BlockPool(num_blocks, block_size)
        self.block_size = block_size
        self.window = window

    def first_visible_block(self, num_computed_tokens: int) -> int:
        """The block of the first key that the query at position ``num_computed_tokens`` sees."""
        return max(0, num_computed_tokens - self.window + 1) // self.block_size

    def num_missing_blocks(self, table: BlockTable, num_tokens: int) -> int:
        return max(0, -(-num_tokens // self.block_size) - table.first_block - len(table.block_ids))

    def num_blocks_to_come(self, table: BlockTable, num_tokens: int) -> int:
        """How many more blocks than now a sequence holds when its ``num_tokens`` are computed."""
        num_blocks = min(-(-num_tokens // self.block_size), max_blocks_touched(self.window, self.block_size))
        return max(0, num_blocks - len(table.block_ids))

    def num_in_use(self, block_ids: list[int]) -> int:
        return sum(self.pool.ref_count(block_id) > 0 for block_id in block_ids)

    def extend(self, table: BlockTable, num_blocks: int) -> None:
        for _ in range(num_blocks):
            table.block_ids.append(self.pool.allocate())

    def attach(self, table: BlockTable, block_ids: list[int], *, first_block: int) -> None:
        """Let an empty table begin with blocks that hold its prefix already."""
        for block_id in block_ids:
            self.pool.acquire(block_id)
        table.block_ids, table.first_block = block_ids.copy(), first_block

    def release_invisible(self, table: BlockTable, num_computed_tokens: int) -> None:
        num_invisible = self.first_visible_block(num_computed_tokens) - table.first_block
        if num_invisible > 0:
            for block_id in table.block_ids[:num_invisible]:
                self.pool.release(block_id)
            del table.block_ids[:num_invisible]
            table.first_block += num_invisible

    def release_behind(self, table: BlockTable, num_tokens: int) -> None:
        """Release what the table has beyond the block of token ``num_tokens - 1``."""
        num_blocks = max(0, -(-num_tokens // self.block_size) - table.first_block)
        for block_id in reversed(table.block_ids[num_blocks:]):
            self.pool.release(block_id)
        del table.block_ids[num_blocks:]

    def release_all(self, table: BlockTable) -> None:
        """Last block first, so that the end of a prefix is reused before the beginning that more prompts share."""
        for block_id in reversed(table.block_ids):
            self.pool.release(block_id)
        table.block_ids, table.first_block = [], 0

    def check_integrity(self, tables: list[BlockTable]) -> None:
        """Assert that the blocks in use are exactly those in ``tables``, as often as they are there."""
        held = Counter(chain.from_iterable(table.block_ids for table in tables))
        assert held == self.pool.ref_counts(), "the reference counts are not those of the tables"
        self.pool.check_integrity()
