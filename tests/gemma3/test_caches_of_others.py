"""Caches that root has warmed, read by a service's user; homes that this user may not enter."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.cpu import packed_file
from gemma3.cpu.load import load_packed
from gemma3.cpu.packed_layout import PackedWeights
from gemma3.files import cache_folders as folders
from tests.gemma3 import tiny
from tests.gemma3.test_cpu_packed_file import MODEL, default, packings  # noqa: F401

pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
SERVICE = 12_345


@contextmanager
def as_service() -> Iterator[None]:
    os.seteuid(SERVICE)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Below folders that everybody may enter, which those of pytest are not."""
    monkeypatch.setattr(packed_file, "SHARED_FOLDER", "packed")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "cache"


@pytest.fixture
def checkpoint(cache: Path) -> Path:
    folder = tiny.save_directory(cache.parent / "model", MODEL)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def load(path: Path, cache: Path | None) -> PackedWeights:
    return load_packed(open_checkpoint(path), "int8", cache_dir=cache)


def test_what_root_has_warmed_is_used(
    cache: Path,
    checkpoint: Path,
    default: Path,  # noqa: F811
    packings: list[str],  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = [load(path, cache).tensors for path in (default, checkpoint)]
    assert len(packings) == 2
    caplog.clear()
    with as_service():
        assert embedded.embedded_gguf(cache) == (default, False)
        weights = [load(path, cache) for path in (default, checkpoint)]
        assert [each.tensors for each in weights] == expected
        for each in weights:
            assert each.check is not None
            each.check(0.0)
    assert len(packings) == 2
    assert not caplog.records


@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_a_home_that_may_not_be_entered_or_written(
    cache: Path,
    checkpoint: Path,
    packings: list[str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: int,
) -> None:
    """A folder of this user's own below the temporary one is used instead, and again."""
    home = cache.parent / "home"
    home.mkdir(mode)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    (cache.parent / "tmp").mkdir()
    (cache.parent / "tmp").chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(cache.parent / "tmp"))
    with as_service():
        for _ in range(2):
            assert load(checkpoint, None).tensors
    assert len(packings) == 1
    (path,) = (cache.parent / "tmp").rglob("*.safetensors")
    assert path.stat().st_uid == SERVICE
    assert folders.ADVICE in caplog.text


def test_a_folder_that_another_user_has_laid_ready(
    cache: Path,
    checkpoint: Path,
    packings: list[str],  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a shared folder anybody can be faster; what lies there is neither read nor written."""
    cache.mkdir()
    os.chown(cache, SERVICE, SERVICE)
    with as_service():
        load(checkpoint, cache)
    (path,) = cache.rglob("*.safetensors")
    before = path.stat()
    load(checkpoint, cache)
    assert len(packings) == 2
    assert path.stat() == before
    assert f"belongs to user {SERVICE}" in caplog.text
