"""The cache of packed weights: used when whole, made anew when not, bounded, and never in the way."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from gemma3.checkpoints import embedded_weights
from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.cpu import packed_file
from gemma3.cpu.load import load_packed
from gemma3.cpu.packed_layout import SCHEMES, PackedLayout, PackedWeights
from gemma3.errors import CheckpointError
from gemma3.files.held_file import HeldFile
from tests.gemma3 import tiny

pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")

MODEL = tiny.oracle_model(tiny.random_shape(random.Random(5)) | {"vocab_size": 5_000}, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_directory(tmp_path / "model", MODEL)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packed_file, "SHARED_FOLDER", "packed")
    return tmp_path / "cache"


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scheme of every packing that was done."""
    from gemma3.cpu import packing

    done: list[str] = []
    pack = packing.pack_balanced

    def counted(checkpoint: object, layout: PackedLayout, progress: object) -> memoryview:
        done.append(layout.scheme)
        return pack(checkpoint, layout, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(packing, "pack_balanced", counted)
    return done


def load(folder: Path, cache: Path, scheme: str = "int8") -> PackedWeights:
    return load_packed(open_checkpoint(folder), scheme, cache_dir=cache)


def files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packed_once(folder: Path, cache: Path, packings: list[str], scheme: str) -> None:
    first = load(folder, cache, scheme)
    again = load(folder, cache, scheme)
    assert packings == [scheme]
    assert again.tensors == first.tensors
    (path,) = files(cache)
    assert path.parent == cache / "packed"


def test_the_file_is_safetensors_and_aligned(folder: Path, cache: Path) -> None:
    load(folder, cache)
    (path,) = files(cache)
    layout = PackedLayout.of(open_checkpoint(folder).config, "int8")
    data_start = path.stat().st_size - layout.num_bytes
    assert data_start % 4_096 == 0
    assert all(tensor.start % 64 == 0 for tensor in layout.tensors.values())
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == set(layout.tensors)
        assert set(file.metadata()) == {"format", "scheme", "source", "sha256", "checksum"}
        for name, tensor in layout.tensors.items():
            assert file.get_tensor(name).shape == tensor.shape


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half:] = bytes(len(content) - half)
    path.write_bytes(content)


def other_sha256(path: Path) -> None:
    content = path.read_bytes()
    at = content.index(b'"sha256":"') + 10
    path.write_bytes(content[:at] + b"0" * 64 + content[at + 64 :])


def zero_start(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes(8_192) + content[8_192:])


def other_file(path: Path) -> None:
    """Of the same size."""
    path.write_bytes(os.urandom(path.stat().st_size))


def other_version(path: Path) -> None:
    version = f'"format":"{packed_file.FORMAT_VERSION}"'.encode()
    path.write_bytes(path.read_bytes().replace(version, version[:-2] + b'0"'))


def other_source(path: Path) -> None:
    content = path.read_bytes()
    at = content.index(b'"source":"') + 10
    path.write_bytes(content[:at] + b"0" * 32 + content[at + 32 :])


def other_shape(path: Path) -> None:
    content = path.read_bytes()
    num_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + num_bytes])
    header["final_norm"]["shape"].insert(0, 1)
    path.write_bytes(content[:8] + json.dumps(header).encode().ljust(num_bytes) + content[8 + num_bytes :])


DAMAGES: list[Callable[[Path], None]] = [
    cut,
    lengthen,
    empty,
    zero_pages,
    zero_start,
    other_version,
    other_source,
    other_sha256,
    other_shape,
    other_file,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_file_that_is_not_whole_is_made_anew(
    folder: Path, cache: Path, packings: list[str], damage: Callable[[Path], None]
) -> None:
    load(folder, cache)
    (path,) = files(cache)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    load(folder, cache)
    assert len(packings) == 2
    assert path.read_bytes() == whole


def test_other_weights_are_packed_anew(folder: Path, cache: Path, packings: list[str]) -> None:
    """Also when only one value in the middle has changed, and when only the time has."""
    load(folder, cache)
    tensors = tiny.weights_of(MODEL)
    tensors["model.layers.0.mlp.up_proj.weight"][3, 3] += 1
    before = load(folder, cache).tensors
    tiny.save_directory(folder, MODEL, tensors)
    assert load(folder, cache).tensors != before
    os.utime(folder / "model.safetensors", ns=(1, 1))
    load(folder, cache)
    assert len(packings) == 3


def test_a_folder_may_be_moved(folder: Path, cache: Path, packings: list[str]) -> None:
    load(folder, cache)
    load(folder.rename(folder.parent / "elsewhere"), cache)
    assert len(packings) == 1


@pytest.fixture
def default(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny embedded default, joined."""
    content = tiny.save_gguf(cache.parent / "tiny.gguf", MODEL).read_bytes()
    monkeypatch.setattr(embedded_weights, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(embedded_weights, "NUM_BYTES", len(content))
    monkeypatch.setattr(embedded_weights, "HEADER_CRC32", zlib.crc32(content[: embedded_weights.HEADER_BYTES]))
    monkeypatch.setattr(embedded_weights, "is_installed", lambda: True)
    monkeypatch.setattr(embedded_weights, "_part_paths", lambda: iter([cache.parent / "tiny.gguf"]))
    return embedded_weights.embedded_gguf(cache)[0]


def test_a_damaged_default_is_joined_anew_before_it_is_packed(cache: Path, default: Path, packings: list[str]) -> None:
    """And what was packed stays valid, although the time of the file has changed."""
    good = load(default, cache)
    whole = default.read_bytes()
    default.write_bytes(whole[:-5] + b"damag")
    assert load(default, cache).tensors == good.tensors
    assert len(packings) == 1
    default.with_name("packed-int8.safetensors").unlink()
    anew = load(default, cache)
    assert anew.tensors == good.tensors
    assert anew.sha256 == good.sha256
    assert default.read_bytes() == whole


def test_the_embedded_default_keeps_its_own_beside_it(cache: Path, default: Path) -> None:
    for scheme in SCHEMES:
        load(default, cache, scheme)
    assert {file.name for file in files(cache)} == {
        default.name,
        "packed-int8.safetensors",
        "packed-int4.safetensors",
    }


@pytest.mark.parametrize("limit", ["bytes", "files"])
def test_the_shared_folder_is_bounded(
    tmp_path: Path, folder: Path, cache: Path, packings: list[str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Three fit; the one used least recently goes."""
    load(folder, cache)
    (path,) = files(cache)
    if limit == "files":
        monkeypatch.setattr(packed_file, "MAX_FOLDER_FILES", 3)
    else:
        monkeypatch.setattr(packed_file, "MAX_FOLDER_BYTES", path.stat().st_size * 7 // 2)
    folders = [folder, *(Path(shutil.copytree(folder, tmp_path / f"copy{i}")) for i in range(3))]
    for age, other in enumerate(folders[1:3]):
        os.utime(other / "model.safetensors", ns=(age, age))
        load(other, cache)
    for age, file in enumerate(sorted(files(cache), key=lambda file: file.stat().st_mtime_ns)):
        os.utime(file, (age, age))
    load(folder, cache)  # the oldest file is used again
    os.utime(folders[3] / "model.safetensors", ns=(9, 9))
    load(folders[3], cache)
    assert len(files(cache)) == 3
    assert len(packings) == 4
    load(folder, cache)
    load(folders[2], cache)
    assert len(packings) == 4, "these two are still there"
    load(folders[1], cache)
    assert len(packings) == 5, "this one had to go"


def test_what_dead_processes_left_is_removed(folder: Path, cache: Path) -> None:
    (cache / "packed").mkdir(parents=True)
    (cache / "packed" / "x.safetensors12345678.tmp").write_bytes(b"half a file")
    load(folder, cache)
    assert len(files(cache)) == 1


def test_a_cache_that_cannot_be_written(
    folder: Path, cache: Path, packings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file, not a directory")
    weights = load(folder, cache)
    assert "cannot be kept" in caplog.text
    assert "each start packs anew" in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)
    cache.unlink()
    assert load(folder, cache).tensors == weights.tensors


def test_a_full_disk(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert load(folder, cache).tensors
    assert "No space left on device" in caplog.text
    assert files(cache) == [], "no temporary file stays"


def test_a_cache_that_can_only_be_read(
    folder: Path, cache: Path, packings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder, cache)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    load(folder, cache)
    assert len(packings) == 1


def test_processes_that_start_at_once(folder: Path, cache: Path) -> None:
    code = (
        "from pathlib import Path; from gemma3.checkpoints.checkpoint import open_checkpoint; "
        "from gemma3.cpu.load import load_packed; "
        f"load_packed(open_checkpoint(Path({str(folder)!r})), 'int8', cache_dir=Path({str(cache)!r}))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    (path,) = files(cache)
    whole = path.read_bytes()
    path.unlink()
    load(folder, cache)
    assert path.read_bytes() == whole


def flip(path: Path, position: int) -> None:
    """One bit, in place."""
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def test_one_bit_that_the_samples_miss_is_found_later(
    folder: Path, cache: Path, packings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    good = load(folder, cache)
    assert good.check is None, "what was packed just now is not doubted"
    (path,) = files(cache)
    whole = path.read_bytes()
    flip(path, len(whole) - 100_000)
    damaged = load(folder, cache)
    assert damaged.tensors != good.tensors
    assert damaged.sha256 == good.sha256
    assert damaged.check is not None
    with pytest.raises(CheckpointError, match=f"{path} is damaged"):
        damaged.check(0.0)
    assert files(cache) == [], "the next load packs anew"
    again = load(folder, cache)
    assert again.tensors == good.tensors
    assert path.read_bytes() == whole
    assert len(packings) == 2


def test_a_whole_file_passes_and_is_let_go(folder: Path, cache: Path) -> None:
    load(folder, cache)
    weights = load(folder, cache)
    good = {name: bytes(tensor) for name, tensor in weights.tensors.items()}
    assert weights.check is not None
    weights.check(0.0)
    (path,) = files(cache)
    path.write_bytes(b"another file")
    assert weights.tensors == good


def test_a_check_that_gets_no_memory_condemns_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load(folder, cache)
    weights = load(folder, cache)
    (path,) = files(cache)

    def refused(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(HeldFile, "_move", refused)
    assert weights.check is not None
    weights.check(0.0)
    assert files(cache) == [path]
    assert "not checked (Cannot allocate memory)" in caplog.text


def test_damage_that_cannot_be_removed(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(folder, cache)
    (path,) = files(cache)
    flip(path, path.stat().st_size - 100_000)
    weights = load(folder, cache)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    assert weights.check is not None
    with pytest.raises(CheckpointError, match="cannot be removed"):
        weights.check(0.0)


def test_a_file_that_others_may_write_to_is_made_anew(
    folder: Path, cache: Path, packings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    load(folder, cache)
    (path,) = files(cache)
    path.chmod(0o666)
    load(folder, cache)
    assert len(packings) == 2
    assert path.stat().st_mode & 0o022 == 0
    assert "can be written by others" in caplog.text


def test_the_next_folder_is_taken(
    folder: Path, cache: Path, tmp_path: Path, packings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.write_text("a file, not a directory")
    monkeypatch.setattr(packed_file, "cache_folders", lambda _only: [closed, cache])
    first, again = load(folder, cache), load(folder, cache)
    assert again.tensors == first.tensors
    assert len(packings) == 1
