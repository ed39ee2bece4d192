"""Blocks whose K and V are copied into others, since several sequences go on from the middle of one.

Plain values: the KV cache manager asks for copies, the engine core has them made, a runner makes them. Engine thread
only.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartialBlock:
    """The end of a scored prompt, which fills its last block in part: each continuation gets a copy."""

    num_tokens: int
    global_block_id: int
    sliding_block_id: int


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """To be made before the next step writes anything: from block to block of one of the pools, for one request."""

    request_id: str
    source: int
    target: int
    is_sliding: bool
