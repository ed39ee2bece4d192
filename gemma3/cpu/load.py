"""The packed weights of a checkpoint: from the disk if they are there, else packed and kept.

Owns that choice. Imports numpy only where it packs, and never torch. One thread calls it.
"""

import logging
import mmap
from pathlib import Path

from gemma3.checkpoints.checkpoint import Checkpoint
from gemma3.checkpoints.embedded_weights import cache_folder
from gemma3.cpu.packed_file import PackedFile
from gemma3.cpu.packed_layout import PackedLayout, PackedWeights
from gemma3.progress import Progress, no_progress

_ROOM_FOR_NUMPY_BYTES = 256 << 20

log = logging.getLogger("gemma3")


def load_packed(
    checkpoint: Checkpoint, scheme: str, *, progress: Progress = no_progress, cache_dir: Path | None = None
) -> PackedWeights:
    """The packed weights of a checkpoint, from the cache if they are there.

    A cache that cannot be written costs a line in the log, and the time to pack at every start.

    Raises:
        CheckpointError: a tensor holds NaN or infinite values, or a second copy of the head differs from the embedding.
        OSError: there is not enough memory to pack.
    """
    packed = PackedFile(checkpoint, PackedLayout.of(checkpoint.config, scheme), cache_dir or cache_folder())
    tensors = packed.open()
    if tensors is None:
        log.info("Packing the weights as %s, once: some 10 s of processor time", scheme)
        # numpy's libraries end the process where there is no room for them: ask for it first.
        mmap.mmap(-1, packed.layout.num_bytes + _ROOM_FOR_NUMPY_BYTES).close()
        from gemma3.cpu.packing import pack_balanced

        data = pack_balanced(checkpoint, packed.layout, progress)
        packed.keep(data)
        tensors = packed.layout.views(data)
    return PackedWeights(scheme, tensors)
