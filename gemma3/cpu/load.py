"""The packed weights of a checkpoint: from the disk if they are there, else packed and kept.

Owns that choice. Imports numpy only where it packs, and never torch. One thread calls it.
"""

import logging
import mmap
from pathlib import Path

from gemma3.checkpoints.checkpoint import Checkpoint
from gemma3.checkpoints.verified import verified
from gemma3.cpu.packed_file import PackedFile
from gemma3.cpu.packed_layout import PackedLayout, PackedWeights
from gemma3.progress import Progress, no_progress

_NUMPY_BYTES = 128 << 20  # of address space, for its libraries and their threads

log = logging.getLogger("gemma3")


def load_packed(
    checkpoint: Checkpoint, scheme: str, *, progress: Progress = no_progress, cache_dir: Path | None = None
) -> PackedWeights:
    """The packed weights of a checkpoint, from the cache if they are there.

    A cache that cannot be written costs a line in the log, and the time to pack at every start.

    Raises:
        CheckpointError: a tensor holds NaN or infinite values, a second copy of the head differs from the embedding, or
            the embedded default is damaged and cannot be joined anew.
        OSError, MemoryError: a limit of this process does not allow so much memory.
    """
    layout = PackedLayout.of(checkpoint.config, scheme)
    file = PackedFile(checkpoint, layout, cache_dir)
    packed = file.open()
    if packed is None:
        log.info("Packing the weights as %s, once: some seconds", scheme)
        _check_room(layout.num_bytes)
        from gemma3.cpu.packing import pack_balanced

        packed = file.keep(pack_balanced(verified(checkpoint, cache_dir), layout, progress))
    check = None if packed.check is None else packed.check.run
    return PackedWeights(scheme, layout.views(packed.data), packed.sha256, check)


def _check_room(num_bytes: int) -> None:
    """The libraries of numpy end the whole process where they get no memory, and not in one line.

    Nothing is taken: a mapping that nobody writes to has no pages.

    Raises:
        OSError: there is no room for packed weights of this size and numpy.
    """
    mmap.mmap(-1, num_bytes + _NUMPY_BYTES).close()
