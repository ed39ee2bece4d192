"""Packed weights on disk: made once for a checkpoint and a scheme, mapped at every later start.

Owns where the file lies, when it may be used, and when it goes. A file is used only if it is whole:
it gets its name by an atomic rename, its header must be the very bytes that this version would
write, and a checksum over samples of its pages must fit. Anything else is made anew.
``packed_check.py`` looks at the other pages, later. Knows nothing of how weights are packed.

Beside the embedded default's file lie its own packed files; those of all other checkpoints share a
folder that is bounded in bytes and in files, the least recently used going first. Processes may do
all this at once: each writes a file of its own, and the later rename wins.
"""

import errno
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gemma3.checkpoints.checkpoint import Checkpoint, content_hash
from gemma3.checkpoints.embedded_weights import SHA256, default_folder, is_joined_gguf
from gemma3.cpu.packed_check import PackedCheck
from gemma3.cpu.packed_layout import PackedLayout
from gemma3.files.atomic_write import atomic_write, remove_leftovers
from gemma3.files.cache_folders import ADVICE, cache_folders, is_trusted, make_folder
from gemma3.files.held_file import HeldFile
from gemma3.files.safetensors_file import METADATA

# To be raised whenever the same checkpoint would give other bytes: it is part of every file's header.
FORMAT_VERSION = 5
SHARED_FOLDER = "packed"
MAX_FOLDER_BYTES = 2 << 30
MAX_FOLDER_FILES = 16

_SUFFIX = ".safetensors"
_SAMPLE_BYTES = 4_096
_SAMPLE_STEP_BYTES = 256 << 10

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True)
class PackedData:
    """Packed bytes, and the SHA-256 that they had when they were packed. ``check``: whether they still have it, to be told
    later; ``None`` if they were packed just now."""

    data: memoryview
    sha256: str
    check: PackedCheck | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """A path for the file, in the cache folder ``root``."""

    root: Path
    path: Path


class PackedFile:
    """Where the packed weights of one checkpoint lie, or will: a place in each of the cache folders."""

    def __init__(self, checkpoint: Checkpoint, layout: PackedLayout, cache_dir: Path | None = None) -> None:
        self.layout = layout
        is_default = is_joined_gguf(checkpoint.weight_files[0], cache_dir)
        # The default is named by all its bytes, which are checked before they are packed.
        self._source = SHA256[:32] if is_default else source_identity(checkpoint.weight_files)
        own, shared = f"packed-{layout.scheme}{_SUFFIX}", f"{self._source}-{layout.scheme}{_SUFFIX}"
        self._places = [
            _Place(root, default_folder(root) / own if is_default else root / SHARED_FOLDER / shared)
            for root in cache_folders(cache_dir)
        ]

    @property
    def paths(self) -> list[Path]:
        """Where the file may lie, the first that can be written before the others."""
        return [place.path for place in self._places]

    def open(self) -> PackedData | None:
        """Map the file; ``None`` if it is not there, or not exactly what would be written now.

        Raises:
            OSError: there is no room to map it, hence none to pack anew.
        """
        for place in self._places:
            remove_leftovers(place.path.parent)
            try:
                file = HeldFile(place.path)
            except ValueError:  # it is empty
                continue
            except OSError as error:
                if error.errno == errno.ENOMEM:
                    raise
                continue
            if is_trusted(place.path, place.root):
                packed = self._packed(file, place.path)
                if packed is not None:
                    return packed
        return None

    def keep(self, data: memoryview) -> PackedData:
        """Write the file and make room for it. If that cannot be done, a line in the log says so."""
        packed = PackedData(data, hashlib.sha256(data).hexdigest())
        for place in self._places:
            folder = place.path.parent
            try:
                make_folder(folder, place.root)
                _make_room(folder, len(data))
                with atomic_write(place.path) as file:
                    file.write(self._header(packed.sha256, _checksum(data, packed.sha256)))
                    file.write(data)
            except OSError as error:
                reason = error.strerror
                log.warning(
                    "The packed weights cannot be kept in %s (%s); to choose another, %s.", folder, reason, ADVICE
                )
            else:
                return packed
        log.warning("The packed weights are not kept: each start packs anew.")
        return packed

    def _packed(self, file: HeldFile, path: Path) -> PackedData | None:
        data_start = max(0, len(file.view) - self.layout.num_bytes)
        header, data = file.view[:data_start], file.view[data_start:]
        sha256 = _sha256_in(header)
        if header != self._header(sha256, _checksum(data, sha256)):
            log.warning("%s is damaged, or of another version: it is made anew.", path)
            return None
        with suppress(OSError):  # a cache that can only be read is a cache
            os.utime(path)  # who was used last goes last
        return PackedData(data, sha256, PackedCheck(file, path, data_start, sha256))

    def _header(self, sha256: str, checksum: str) -> bytes:
        fields = {"format": str(FORMAT_VERSION), "scheme": self.layout.scheme, "source": self._source}
        return self.layout.header(fields | {"sha256": sha256, "checksum": checksum})


def source_identity(paths: Sequence[Path]) -> str:
    """Names the content of weight files; a change that the samples of ``content_hash`` miss has changed the time.

    The path is no part of it, so a folder may be moved.
    """
    times_ns = [path.stat().st_mtime_ns for path in paths]
    return hashlib.sha256(f"{content_hash(paths)} {times_ns}".encode()).hexdigest()[:32]


def _checksum(data: memoryview, sha256: str) -> str:
    """Of one page in 64: what a crash or a full disk leaves behind is pages of zeros, many in a row. Takes 5 ms."""
    checksum = zlib.crc32(sha256.encode())
    for start in range(0, len(data), _SAMPLE_STEP_BYTES):
        checksum = zlib.crc32(data[start : start + _SAMPLE_BYTES], checksum)
    return f"{checksum:08x}"


def _sha256_in(header: memoryview) -> str:
    """What the header says of the data; nothing if it is no header."""
    with suppress(ValueError, RecursionError, TypeError, KeyError):
        return str(json.loads(bytes(header[8:]))[METADATA]["sha256"])
    return ""


def _make_room(folder: Path, num_bytes: int) -> None:
    """Remove packed files, the least recently used first, until a new one fits."""
    num_files = 1
    for path, status in sorted(_packed_files(folder), key=lambda file: -file[1].st_mtime):
        num_files, num_bytes = num_files + 1, num_bytes + status.st_size
        if num_files > MAX_FOLDER_FILES or num_bytes > MAX_FOLDER_BYTES:
            path.unlink(missing_ok=True)


def _packed_files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(FileNotFoundError):  # another process was faster
            yield path, path.stat()
