"""Blocks are handed out, shared, freed, found again and reused in the right order."""

import random
import time

import pytest

from engine.block_pool import BlockPool, BlockTable, LayerPool, PrefixKey, max_blocks_touched


class Colliding(int):
    """A token id whose hash is that of every other."""

    def __hash__(self) -> int:
        return 7


def publish_chain(pool: BlockPool, salt: str, *blocks: tuple[int, ...]) -> list[int]:
    """Allocate and publish one block after the other; returns the block ids."""
    parent: int | str = salt
    block_ids = []
    for token_ids in blocks:
        block_ids.append(pool.allocate())
        parent = pool.publish(block_ids[-1], PrefixKey(parent, token_ids))
    return block_ids


def find_chain(pool: BlockPool, salt: str, *blocks: tuple[int, ...]) -> list[int]:
    parent: int | str = salt
    found = []
    for token_ids in blocks:
        block_id = pool.find(PrefixKey(parent, token_ids))
        if block_id is None:
            break
        found.append(block_id)
        parent = pool.prefix_id(block_id)
    return found


def test_blocks_are_unique_until_the_pool_is_empty() -> None:
    pool = BlockPool(5, 2)
    assert sorted(pool.allocate() for _ in range(5)) == [0, 1, 2, 3, 4]
    assert (pool.num_free, pool.num_used) == (0, 5)
    pool.check_integrity()


def test_a_shared_block_is_free_when_the_last_reference_goes() -> None:
    pool = BlockPool(2, 2)
    block_id = pool.allocate()
    pool.acquire(block_id)
    pool.release(block_id)
    assert pool.num_free == 1
    pool.release(block_id)
    assert pool.num_free == 2
    with pytest.raises(AssertionError, match="released more often"):
        pool.release(block_id)


def test_free_blocks_are_reused_least_recently_used_first_and_private_ones_before_all() -> None:
    pool = BlockPool(4, 1)
    first, second, third = publish_chain(pool, "", (1,), (2,), (3,))
    private = pool.allocate()
    for block_id in (second, private, third, first):
        pool.release(block_id)
    assert [pool.allocate() for _ in range(4)] == [private, second, third, first]


def test_a_freed_block_is_findable_until_it_is_reused() -> None:
    pool = BlockPool(2, 2)
    (block_id,) = publish_chain(pool, "", (1, 2))
    pool.release(block_id)
    assert find_chain(pool, "", (1, 2)) == [block_id]
    pool.acquire(block_id)
    assert pool.allocate() != block_id, "a block that was found is no longer free"
    pool.release(block_id)
    assert pool.allocate() == block_id
    assert find_chain(pool, "", (1, 2)) == []
    pool.check_integrity()


def test_the_same_tokens_after_another_prefix_or_salt_are_another_block() -> None:
    pool = BlockPool(8, 2)
    after_a = publish_chain(pool, "", (1, 1), (5, 5))
    after_b = publish_chain(pool, "", (2, 2), (5, 5))
    salted = publish_chain(pool, "request-1", (1, 1), (5, 5))
    assert find_chain(pool, "", (1, 1), (5, 5)) == after_a
    assert find_chain(pool, "", (2, 2), (5, 5)) == after_b
    assert find_chain(pool, "request-1", (1, 1), (5, 5)) == salted
    assert find_chain(pool, "request-2", (1, 1), (5, 5)) == []
    assert len({*after_a, *after_b, *salted}) == 6


def test_equal_hashes_never_give_the_block_of_other_tokens() -> None:
    pool = BlockPool(4, 1)
    one, two, three = Colliding(1), Colliding(2), Colliding(3)
    assert hash((one,)) == hash((two,))
    chain = publish_chain(pool, "", (one,), (three,))
    assert find_chain(pool, "", (two,)) == []
    other = publish_chain(pool, "", (two,), (three,))
    assert find_chain(pool, "", (one,), (three,)) == chain
    assert find_chain(pool, "", (two,), (three,)) == other


def test_a_block_does_not_inherit_the_children_of_what_it_held_before() -> None:
    """Block 0 held (1,) when (5,) was published after it; now it holds (2,)."""
    pool = BlockPool(2, 1)
    parent, child = publish_chain(pool, "", (1,), (5,))
    pool.release(parent)
    assert publish_chain(pool, "", (2,)) == [parent]
    assert find_chain(pool, "", (2,), (5,)) == [parent]
    assert pool.ref_count(child) == 1


def test_the_first_of_two_equal_blocks_is_found_and_names_the_prefix_of_both() -> None:
    pool = BlockPool(4, 1)
    first, second = pool.allocate(), pool.allocate()
    key = PrefixKey("", (1,))
    assert pool.publish(first, key) == pool.publish(second, key)
    assert pool.find(key) == first
    pool.release(second)
    assert pool.allocate() == second, "the private one is reused first"


def test_only_used_blocks_can_be_published_and_only_once() -> None:
    pool = BlockPool(2, 2)
    block_id = pool.allocate()
    with pytest.raises(AssertionError, match="contains"):
        pool.publish(block_id, PrefixKey("", (1, 2, 3)))
    with pytest.raises(AssertionError, match="contains"):
        pool.publish(block_id, PrefixKey("", ()))
    with pytest.raises(AssertionError, match="only used"):
        pool.publish(1 - block_id, PrefixKey("", (1, 2)))
    pool.publish(block_id, PrefixKey("", (1, 2)))
    with pytest.raises(AssertionError, match="already"):
        pool.publish(block_id, PrefixKey("", (1, 2)))


def test_the_end_of_a_freed_prefix_is_reused_before_its_beginning() -> None:
    layers = LayerPool(3, block_size=1, window=100)
    block_ids = publish_chain(layers.pool, "", (1,), (2,), (3,))
    layers.release_all(BlockTable(block_ids.copy()))
    layers.pool.allocate()
    assert find_chain(layers.pool, "", (1,), (2,), (3,)) == block_ids[:2]


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="num_blocks=0"):
        BlockPool(0, 16)
    with pytest.raises(ValueError, match="block_size=0"):
        BlockPool(16, 0)


def test_check_integrity_sees_a_block_both_free_and_used() -> None:
    pool = BlockPool(2, 1)
    pool._ref_counts[pool.allocate()] = 0
    with pytest.raises(AssertionError, match="free and used"):
        pool.check_integrity()


def test_operations_cost_the_same_in_a_pool_of_a_hundred_thousand_blocks() -> None:
    def cost_us(num_blocks: int) -> float:
        pool = BlockPool(num_blocks, 1)
        held = [pool.allocate() for _ in range(num_blocks // 2)]
        rng = random.Random(1)
        start_s = time.process_time()
        for number in range(5_000):
            slot = rng.randrange(len(held))
            pool.release(held[slot])
            held[slot] = pool.allocate()
            pool.publish(held[slot], PrefixKey("", (number,)))
        return (time.process_time() - start_s) / 5_000 * 1e6

    small_us = min(cost_us(1_000) for _ in range(3))
    large_us = min(cost_us(100_000) for _ in range(3))
    assert large_us < 5 * small_us + 5


@pytest.mark.parametrize("block_size", [1, 2, 3, 16])
def test_a_stretch_touches_at_most_the_blocks_stated_and_sometimes_all(block_size: int) -> None:
    for num_tokens in range(1, 60):
        touched = [(start + num_tokens - 1) // block_size - start // block_size + 1 for start in range(block_size)]
        assert max(touched) == max_blocks_touched(num_tokens, block_size)


def test_layer_pool_with_a_window_gives_back_what_no_later_query_sees() -> None:
    """Window 4, blocks of 2: with 7 tokens computed, the query at position 7 sees the keys 4 to 7."""
    layers = LayerPool(8, block_size=2, window=4)
    table = BlockTable()
    layers.extend(table, 4)
    block_ids = table.block_ids.copy()
    layers.release_invisible(table, 7)
    assert (table.first_block, table.end_block, table.block_ids) == (2, 4, block_ids[2:])
    assert layers.pool.num_used == 2
    layers.check_integrity([table])
    layers.release_all(table)
    layers.check_integrity([])
    assert (table.first_block, table.end_block, layers.pool.num_used) == (0, 0, 0)


def test_a_pool_that_shrinks_keeps_what_was_used_last() -> None:
    pool = BlockPool(6, 1)
    used = publish_chain(pool, "used", (1,))
    old, new = publish_chain(pool, "old", (1,), (2,)), publish_chain(pool, "new", (1,))
    for block_id in [*reversed(old), *new]:
        pool.release(block_id)
    assert pool.shrink(2) == [2, 4, 5], "the end of the old chain, and what was never used"
    assert find_chain(pool, "used", (1,)) == used
    assert find_chain(pool, "old", (1,), (2,)) == old[:1]
    assert find_chain(pool, "new", (1,)) == new
    pool.check_integrity()
    assert pool.shrink(0) == [1, 2, 3, 4, 5]
    assert find_chain(pool, "new", (1,)) == []
    assert find_chain(pool, "used", (1,)) == used, "what somebody holds stays"
    pool.check_integrity()
    assert [pool.allocate() for _ in range(5)] == [1, 2, 3, 4, 5], "low numbers first"
