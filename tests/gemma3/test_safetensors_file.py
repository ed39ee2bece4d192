"""The safetensors reader against the library's, its bounds, and its messages."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from gemma3.errors import CheckpointError
from gemma3.files.safetensors_file import SafetensorsFile

TENSORS = {
    "b": torch.randn(3, 5),
    "a.weight": torch.randn(7).bfloat16(),
    "h": torch.randn(2, 2).half(),
    "u": torch.arange(9, dtype=torch.uint8),
    "i": torch.arange(3),
    "empty": torch.empty(0, 4),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    return tmp_path / "x.safetensors"


def write(path: Path, header: object, data: bytes = b"12345678") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_the_same_as_the_library(path: Path) -> None:
    file = SafetensorsFile.open(path)
    assert dict(file.metadata) == {"format": "pt"}
    assert file.num_bytes == path.stat().st_size
    with safe_open(path, framework="pt") as expected:
        assert set(file.tensors) == set(expected.keys())
        for name in expected.keys():  # noqa: SIM118 (not a dict)
            tensor = expected.get_tensor(name)
            assert file.tensors[name].shape == tuple(tensor.shape)
            assert file.view(name) == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_pages_can_be_dropped_and_come_back(path: Path) -> None:
    file = SafetensorsFile.open(path)
    before = bytes(file.view("b"))
    file.drop_pages()
    assert file.view("b") == before


BAD: dict[str, Any] = {
    "a list": [],
    "not JSON": b"{",
    "deep": b"[" * 100_000,
    "no fields": {"x": {}},
    "no object": {"x": 3},
    "metadata": {"__metadata__": {"a": 1}, "x": entry()},
    "negative shape": {"x": entry(shape=[-2])},
    "bool in shape": {"x": entry(shape=[True, 2])},
    "float offset": {"x": entry(offsets=[0, 8.0])},
    "three offsets": {"x": entry(offsets=[0, 4, 8])},
    "backwards": {"x": entry(offsets=[8, 0])},
    "too short for its shape": {"x": entry(shape=[3])},
    "huge shape": {"x": entry(shape=[2**62, 2**62])},
    "a gap": {"x": entry(shape=[1], offsets=[0, 4]), "y": entry(shape=[0], offsets=[6, 6])},
    "an overlap": {"x": entry(), "y": entry(shape=[1], offsets=[4, 8])},
    "beyond the file": {"x": entry(shape=[3], offsets=[0, 12])},
    "short of the file": {"x": entry(shape=[1], offsets=[0, 4])},
    "no tensors": {},
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_headers(tmp_path: Path, kind: str) -> None:
    """One line that names the file; the library refuses all of them too."""
    path = write(tmp_path / "x.safetensors", BAD[kind])
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile.open(path)
    message = str(caught.value)
    assert message.startswith("x.safetensors is damaged or not safetensors: ")
    assert message.isprintable()
    assert len(message) < 300
    with pytest.raises(SafetensorError), safe_open(path, framework="pt"):
        pass


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    for length in (2**63, 100_000_001, 3):
        (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(CheckpointError, match="a header of"):
            SafetensorsFile.open(tmp_path / "x.safetensors")


def test_random_damage_is_refused_or_harmless(path: Path) -> None:
    """Bytes of the header are changed: every answer is an error of one kind, or views within the file."""
    rng, whole = random.Random(0), path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(500):
        changed = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(end)] = rng.choice(b'0123456789"{}[],:x\x00\xff')
        path.write_bytes(changed)
        try:
            file = SafetensorsFile.open(path)
        except CheckpointError:
            continue
        for name, tensor in file.tensors.items():
            assert len(file.view(name)) == tensor.end - tensor.start


def test_nothing_large_is_imported() -> None:
    code = "import sys, gemma3.files.safetensors_file; print([m for m in ('torch', 'numpy', 'safetensors') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("doubled", ["name", "key"])
def test_a_name_that_stands_twice(tmp_path: Path, doubled: str) -> None:
    """JSON would take the later one."""
    entry = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = (
        b'{"a":' + entry + b',"a":' + entry + b"}" if doubled == "name" else b'{"a":' + entry[:-1] + b',"shape":[1]}}'
    )
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"the header names '(a|shape)' twice"):
        SafetensorsFile.open(path)
