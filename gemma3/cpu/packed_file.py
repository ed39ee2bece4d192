"""Packed weights on disk: made once for a checkpoint and a scheme, mapped at every later start.

Owns where the file lies, when it may be used, and when it goes. A file is used only if it is whole: it gets its name by an atomic
rename, its header must be the very bytes this version would write, and a checksum over samples of its pages must fit.
Anything else is made anew. Knows nothing of how weights are packed.

Beside the embedded default's file lie its own packed files; those of all other checkpoints share a folder that is bounded in bytes
and in files, the least recently used going first. Processes may do all this at once: each writes a file of its own, the later
rename wins, and a file that is removed lives on for those that have mapped it.
"""

import hashlib
import logging
import mmap
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gemma3.checkpoints.checkpoint import Checkpoint, content_hash
from gemma3.checkpoints.embedded_weights import default_folder
from gemma3.cpu.packed_layout import PackedLayout
from gemma3.files.atomic_write import TEMPORARY_SUFFIX, atomic_write

# To be raised whenever the same checkpoint would give other bytes: it is part of every file's header.
FORMAT_VERSION = 2
SHARED_FOLDER = "packed"
MAX_FOLDER_BYTES = 2 << 30
MAX_FOLDER_FILES = 16

_SAMPLE_BYTES = 4_096
_SAMPLE_STEP_BYTES = 256 << 10
_STALE_S = 3_600.0  # a temporary file this old has lost its process
_SUFFIX = ".safetensors"

log = logging.getLogger("gemma3")


class PackedFile:
    """Where the packed weights of one checkpoint lie, or will."""

    def __init__(self, checkpoint: Checkpoint, layout: PackedLayout, cache_dir: Path) -> None:
        self.layout = layout
        self._source = source_identity(checkpoint.weight_files)
        if checkpoint.weight_files[0].parent == default_folder(cache_dir):
            self._path = default_folder(cache_dir) / f"packed-{layout.scheme}{_SUFFIX}"
        else:
            self._path = cache_dir / SHARED_FOLDER / f"{self._source}-{layout.scheme}{_SUFFIX}"

    def open(self) -> dict[str, memoryview] | None:
        """Map the file; ``None`` if it is not there, or not exactly what would be written now."""
        try:
            with self._path.open("rb") as file:
                whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # mmap refuses an empty file with the latter
            return None
        data = whole[max(0, len(whole) - self.layout.num_bytes) :]
        if whole[: len(whole) - len(data)] != self._header(data):
            return None
        with suppress(OSError):  # a cache that can only be read is a cache
            os.utime(self._path)  # who was used last goes last
        return self.layout.views(data)

    def keep(self, data: memoryview) -> None:
        """Write the file and make room for it. If that cannot be done, a line in the log says so."""
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _make_room(folder, len(data))
            with atomic_write(self._path) as file:
                file.write(self._header(data))
                file.write(data)
        except OSError as error:
            log.warning("The packed weights cannot be kept in %s (%s): each start packs anew.", folder, error.strerror)

    def _header(self, data: memoryview) -> bytes:
        return self.layout.header(
            {
                "format": str(FORMAT_VERSION),
                "scheme": self.layout.scheme,
                "source": self._source,
                "checksum": f"{_checksum(data):08x}",
            }
        )


def source_identity(paths: Sequence[Path]) -> str:
    """Names the content of weight files; a change that the samples of ``content_hash`` miss has changed the time.

    The path is no part of it, so a folder may be moved.
    """
    times_ns = [path.stat().st_mtime_ns for path in paths]
    return hashlib.sha256(f"{content_hash(paths)} {times_ns}".encode()).hexdigest()[:32]


def _checksum(data: memoryview) -> int:
    """Of one page in 64: what a crash or a full disk leaves behind is pages of zeros, many in a row. Takes 5 ms."""
    checksum = 0
    for start in range(0, len(data), _SAMPLE_STEP_BYTES):
        checksum = zlib.crc32(data[start : start + _SAMPLE_BYTES], checksum)
    return checksum


def _make_room(folder: Path, num_bytes: int) -> None:
    """Remove what processes that died left behind, and packed files, the least recently used first, until a new one fits."""
    for path, status in _files(folder, TEMPORARY_SUFFIX):
        if time.time() - status.st_mtime > _STALE_S:
            path.unlink(missing_ok=True)
    num_files = 1
    for path, status in sorted(_files(folder, _SUFFIX), key=lambda file: -file[1].st_mtime):
        num_files, num_bytes = num_files + 1, num_bytes + status.st_size
        if num_files > MAX_FOLDER_FILES or num_bytes > MAX_FOLDER_BYTES:
            path.unlink(missing_ok=True)


def _files(folder: Path, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.glob(f"*{suffix}"):
        with suppress(FileNotFoundError):  # another process was faster
            yield path, path.stat()
