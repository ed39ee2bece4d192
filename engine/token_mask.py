"""Sets of token ids as bits, as the runners take them: what a row may choose.

Bytes of little-endian uint32 words: id i is bit i % 32 of word i // 32. Ids beyond the last word are not in the set. Knows
nothing of requests, grammars or models. Any thread.
"""

from collections import abc

_WORD_BITS = 32


def mask_of(token_ids: abc.Collection[int]) -> bytes:
    """The set of these ids, in as few words as the largest needs: ``mask_of([0, 33])`` is ``01000000 02000000``."""
    num_words = max(token_ids, default=-1) // _WORD_BITS + 1
    bits = bytearray(num_words * _WORD_BITS // 8)
    for token_id in token_ids:
        bits[token_id // 8] |= 1 << token_id % 8
    return bytes(bits)


def intersection(mask: bytes, other: bytes) -> bytes:
    """The ids that are in both, in as many words as the shorter one has."""
    num_bytes = min(len(mask), len(other))
    both = int.from_bytes(mask[:num_bytes], "little") & int.from_bytes(other[:num_bytes], "little")
    return both.to_bytes(num_bytes, "little")
