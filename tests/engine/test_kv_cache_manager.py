"""Memory arithmetic, and which prefixes can be reused when part of their blocks is gone."""

import random

import pytest

from engine.caller import Caller
from engine.kv_cache_manager import KVCacheManager
from engine.kv_cache_sizes import BlockCounts, KVCacheLayout, blocks_for_one_sequence, num_blocks_for
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, new_sequences

MIB = 2**20
GEMMA3_270M = KVCacheLayout(
    block_size=16, window=512, num_global_layers=3, num_sliding_layers=15, num_bytes_per_token=2 * 256 * 2
)
MAX_MODEL_LEN = 32_768
CHUNK = 384


def new_sequence(token_ids: list[int], *, seq_id: int = 0, **params: int) -> Sequence:
    (seq,) = new_sequences(
        f"request-{seq_id}",
        token_ids,
        params=SamplingParams(**params),  # type: ignore[arg-type]
        first_seq_id=seq_id,
        max_model_len=MAX_MODEL_LEN,
    )
    return seq


def compute(kv: KVCacheManager, seq: Sequence, num_tokens: int) -> None:
    assert kv.allocate(seq, num_tokens)
    kv.mark_computed(seq, num_tokens)
    kv.check_integrity([seq])


def cost_bytes(blocks: BlockCounts) -> int:
    global_bytes = blocks.num_global * GEMMA3_270M.global_block_bytes
    return global_bytes + blocks.num_sliding * GEMMA3_270M.sliding_block_bytes


def test_the_figures_of_the_docstring() -> None:
    assert GEMMA3_270M.global_block_bytes == 48 * 1024
    assert GEMMA3_270M.sliding_block_bytes == 240 * 1024
    held = blocks_for_one_sequence(MAX_MODEL_LEN, block_size=16, window=512, prefill_chunk_tokens=1)
    assert held == BlockCounts(2048, 33)
    assert cost_bytes(held) / MIB == pytest.approx(103.7, abs=0.05)
    prefilling = blocks_for_one_sequence(MAX_MODEL_LEN, block_size=16, window=512, prefill_chunk_tokens=CHUNK)
    assert prefilling == BlockCounts(2048, 57)
    assert cost_bytes(prefilling) / MIB == pytest.approx(109.4, abs=0.05)
    of_2000 = blocks_for_one_sequence(2000, block_size=16, window=512, prefill_chunk_tokens=1)
    assert 16 * cost_bytes(of_2000) / MIB == pytest.approx(217.5, abs=0.05)


def test_a_sequence_of_32768_tokens_holds_at_most_110_mib() -> None:
    kv = KVCacheManager(BlockCounts(2048, 57), block_size=16, window=512)
    seq = new_sequence([token % 1000 for token in range(MAX_MODEL_LEN)])
    most_bytes = 0
    while seq.num_uncomputed_tokens:
        num_tokens = min(CHUNK, seq.num_uncomputed_tokens)
        assert kv.allocate(seq, num_tokens)
        most_bytes = max(most_bytes, cost_bytes(kv.num_used))
        kv.mark_computed(seq, num_tokens)
    assert most_bytes <= 110 * MIB
    assert cost_bytes(kv.num_used) <= 104 * MIB


def test_the_stated_need_is_never_exceeded_and_sometimes_met() -> None:
    for block_size, window, chunk in [(1, 1, 1), (2, 5, 3), (4, 8, 8), (16, 17, 5), (3, 10, 1)]:
        need = blocks_for_one_sequence(100, block_size=block_size, window=window, prefill_chunk_tokens=chunk)
        kv = KVCacheManager(need, block_size=block_size, window=window)
        kv.check_capacity(100, chunk)
        seq = new_sequence([1] * 100)
        rng = random.Random(1)
        most = 0
        while seq.num_uncomputed_tokens:
            num_tokens = min(rng.randint(1, chunk), seq.num_uncomputed_tokens)
            assert kv.allocate(seq, num_tokens)
            most = max(most, kv.num_used.num_sliding)
            kv.mark_computed(seq, num_tokens)
        assert need.num_sliding - most <= (1 if chunk > 1 else 0)


def split(num_mib: int, *, max_num_seqs: int = 16, max_model_len: int = MAX_MODEL_LEN) -> BlockCounts:
    return num_blocks_for(
        num_mib * MIB,
        GEMMA3_270M,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        prefill_chunk_tokens=CHUNK,
    )


@pytest.mark.parametrize("num_mib", [110, 111, 128, 200, 1024, 16384])
@pytest.mark.parametrize("max_num_seqs", [1, 16, 256])
def test_the_split_uses_the_budget_and_holds_the_longest_sequence(num_mib: int, max_num_seqs: int) -> None:
    counts = split(num_mib, max_num_seqs=max_num_seqs)
    assert num_mib * MIB - GEMMA3_270M.global_block_bytes < cost_bytes(counts) <= num_mib * MIB
    KVCacheManager(counts, block_size=16, window=512).check_capacity(MAX_MODEL_LEN, CHUNK)


def test_both_pools_run_full_together() -> None:
    """1 GiB: sequences of 4 windows. 128 MiB for 16 sequences of at most 1,024 tokens: all 16, equally long."""
    counts = split(1024)
    assert counts.num_global // 128 == pytest.approx(counts.num_sliding // 32, abs=1)
    counts = split(128, max_model_len=1024)
    num_blocks_each = 128 * MIB / 16 / (GEMMA3_270M.global_block_bytes + GEMMA3_270M.sliding_block_bytes)
    assert counts.num_sliding == int(16 * num_blocks_each)
    assert counts.num_global == pytest.approx(16 * num_blocks_each, abs=6)


def test_16_sequences_of_2000_tokens_fit_in_1_gib() -> None:
    counts = split(1024)
    kv = KVCacheManager(counts, block_size=16, window=512)
    for seq_id in range(16):
        seq = new_sequence([seq_id] * 2000, seq_id=seq_id)
        while seq.num_uncomputed_tokens:
            num_tokens = min(CHUNK, seq.num_uncomputed_tokens)
            assert kv.allocate(seq, num_tokens)
            kv.mark_computed(seq, num_tokens)
    assert kv.usage < 0.5


def test_a_budget_too_small_is_refused_with_what_is_needed() -> None:
    needed = cost_bytes(BlockCounts(2048, 57))
    with pytest.raises(ValueError, match=f"max_model_len=32768 tokens: that needs {needed} bytes"):
        split(109)
    with pytest.raises(ValueError, match="needs BlockCounts"):
        KVCacheManager(BlockCounts(2048, 56), block_size=16, window=512).check_capacity(MAX_MODEL_LEN, CHUNK)
    with pytest.raises(ValueError, match="needs BlockCounts"):
        KVCacheManager(BlockCounts(2047, 57), block_size=16, window=512).check_capacity(MAX_MODEL_LEN, CHUNK)
    with pytest.raises(ValueError, match="window=0"):
        KVCacheManager(BlockCounts(1, 1), block_size=16, window=0)


def test_allocate_takes_from_both_pools_or_from_none() -> None:
    kv = KVCacheManager(BlockCounts(10, 2), block_size=2, window=100)
    seq = new_sequence([1] * 20)
    assert not kv.allocate(seq, 5)
    assert kv.num_used == BlockCounts(0, 0)
    assert kv.num_tokens_with_room(seq) == 4
    assert kv.allocate(seq, 4)
    assert kv.num_used == BlockCounts(2, 2)
    assert kv.allocate(seq, 3), "asking again for less is no error: a step may be planned twice"
    assert kv.num_used == BlockCounts(2, 2)
    kv.mark_computed(seq, 3)
    assert kv.num_tokens_with_room(seq) == 1


WINDOW = 6  # with blocks of 2: a prefix of length L needs the sliding keys [L - 5, L), which touch 3 blocks


def publish_prefix(num_sliding: int = 50) -> tuple[KVCacheManager, list[int]]:
    """A manager whose cache holds the 10 blocks of a prompt of 20 tokens, all free."""
    kv = KVCacheManager(BlockCounts(50, num_sliding), block_size=2, window=WINDOW)
    prompt = list(range(100, 120))
    seq = new_sequence(prompt)
    for _ in range(10):
        compute(kv, seq, 2)
    kv.free(seq)
    kv.check_integrity([])
    return kv, prompt


@pytest.mark.parametrize(
    ("num_equal", "num_tokens", "num_reused"),
    [
        (20, 24, 20),
        (20, 21, 20),
        (20, 20, 18),
        (20, 19, 18),
        (13, 20, 12),
        (2, 3, 2),
        (1, 9, 0),
        (20, 2, 0),
        (20, 1, 0),
    ],
)
def test_whole_equal_blocks_are_reused_but_never_the_last_token(
    num_equal: int, num_tokens: int, num_reused: int
) -> None:
    kv, prompt = publish_prefix()
    token_ids = (prompt[:num_equal] + [1] * 30)[:num_tokens]
    assert kv.find_prefix(new_sequence(token_ids, seq_id=1)).num_tokens == num_reused


def test_a_hit_holds_the_whole_context_globally_and_the_window_only_in_the_sliding_pool() -> None:
    kv, prompt = publish_prefix()
    seq = new_sequence([*prompt, 1], seq_id=1)
    hit = kv.find_prefix(seq)
    kv.attach(seq, hit)
    assert seq.num_computed_tokens == hit.num_tokens == 20
    assert (len(seq.global_table.block_ids), seq.global_table.first_block) == (10, 0)
    assert (len(seq.sliding_table.block_ids), seq.sliding_table.first_block) == (3, 7)
    kv.check_integrity([seq])


def forget_sliding(kv: KVCacheManager, prompt: list[int], *blocks: int) -> None:
    """As if these sliding blocks of the prompt had been reused for something else."""
    _, sliding_ids = kv._find_blocks(new_sequence([*prompt, 1]))
    pool = kv._sliding.pool
    for block in blocks:
        block_id = sliding_ids[block]
        assert block_id is not None
        pool._free.move_to_end(block_id, last=False)
        assert pool.allocate() == block_id
        pool.release(block_id)


@pytest.mark.parametrize(
    ("forgotten", "num_reused"),
    [
        ((), 20),
        ((0, 1, 2, 3, 4, 5, 6), 20),
        ((7,), 14),
        ((9,), 18),
        ((8,), 16),
        ((4, 8), 16),
        ((5, 8), 10),
        ((1, 4, 7), 2),
        ((0, 3, 6, 9), 0),
        ((2, 5, 8), 4),
        (tuple(range(10)), 0),
    ],
)
def test_the_largest_prefix_whose_window_is_there_is_reused(forgotten: tuple[int, ...], num_reused: int) -> None:
    kv, prompt = publish_prefix()
    forget_sliding(kv, prompt, *forgotten)
    assert kv.find_prefix(new_sequence([*prompt, 1], seq_id=1)).num_tokens == num_reused


def test_random_gaps_agree_with_the_definition() -> None:
    rng = random.Random(5)
    for _ in range(300):
        block_size, window, num_blocks = rng.randint(1, 4), rng.randint(1, 12), rng.randint(0, 12)
        kv = KVCacheManager(BlockCounts(1, 1), block_size=block_size, window=window)
        there = [rng.random() < 0.7 for _ in range(num_blocks)]

        def usable(end: int, bs: int = block_size, w: int = window, there: list[bool] = there) -> bool:
            return all(there[position // bs] for position in range(max(0, end * bs - w + 1), end * bs))

        expected = max(end for end in range(num_blocks + 1) if usable(end))
        found = kv._last_usable_end([1 if is_there else None for is_there in there])
        assert found == expected, (block_size, window, there)


def test_prompt_logprobs_compute_every_row_but_siblings_share() -> None:
    kv, prompt = publish_prefix()
    seq = new_sequence([*prompt, 1], seq_id=1, prompt_logprobs=0)
    assert kv.find_prefix(seq).num_tokens == 0
    seq.index = 1
    assert kv.find_prefix(seq).num_tokens == 20


def test_only_sequences_of_one_salt_share() -> None:
    kv = KVCacheManager(BlockCounts(50, 50), block_size=2, window=WINDOW)
    leader, sibling = new_sequences(
        "a", [1] * 9, params=SamplingParams(n=2), first_seq_id=0, max_model_len=100, caller=Caller(prefix_salt="a")
    )
    stranger = new_sequence([1] * 9, seq_id=2)
    kv.attach(leader, kv.find_prefix(leader))
    compute(kv, leader, 9)
    assert kv.find_prefix(sibling).num_tokens == 8
    assert kv.find_prefix(stranger).num_tokens == 0


def test_blocks_of_tokens_not_computed_are_not_findable() -> None:
    kv = KVCacheManager(BlockCounts(50, 50), block_size=2, window=WINDOW)
    seq, other = new_sequence([1] * 9), new_sequence([1] * 9, seq_id=1)
    compute(kv, seq, 3)
    assert kv.allocate(seq, 6)
    assert kv.find_prefix(other).num_tokens == 2


def test_room_counts_what_running_sequences_still_need_and_spares_shared_blocks() -> None:
    kv = KVCacheManager(BlockCounts(10, 10), block_size=2, window=100)
    running = new_sequence([1] * 12)
    compute(kv, running, 4)
    fits, too_long = new_sequence([2] * 8, seq_id=1), new_sequence([2] * 9, seq_id=2)
    assert kv.has_room_for(fits, kv.find_prefix(fits), running=[running])
    assert not kv.has_room_for(too_long, kv.find_prefix(too_long), running=[running])
    shares = new_sequence([1] * 4 + [2] * 8, seq_id=3)
    assert kv.find_prefix(shares).num_tokens == 4
    assert kv.has_room_for(shares, kv.find_prefix(shares), running=[running])


def test_a_hit_on_free_blocks_takes_them_out_of_the_free_ones() -> None:
    """The 10 global blocks of the prefix are free and findable; another sequence needs all but 9 of the pool."""
    kv, prompt = publish_prefix()
    running = new_sequence([1] * 82, seq_id=1)
    seq = new_sequence([*prompt, 1], seq_id=2)
    hit = kv.find_prefix(seq)
    assert hit.num_tokens == 20
    assert not kv.has_room_for(seq, hit, running=[running])
    running.token_ids = [1] * 78
    assert kv.has_room_for(seq, hit, running=[running])
