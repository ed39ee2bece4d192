"""The doctor is green on sound weights, and red for each kind of damage: of files, values, kernels, ids and the machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engine.doctor import arithmetic, files, machine
from engine.doctor.examination import examine
from engine.doctor.finding import Finding, State
from engine.doctor.reference import Reference, read_reference
from gemma3 import cpu
from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints.checkpoint import Checkpoint, open_checkpoint
from gemma3.cpu.load import load_packed
from gemma3.cpu.packed_file import PackedFile
from gemma3.cpu.packed_layout import PackedLayout
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gemma3.cpu.model import CpuModel

    Floats = NDArray[np.float32]

ROOT = Path(__file__).resolve().parent.parent.parent
needs_core = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=str(cpu.why_unavailable()))


@pytest.fixture(scope="module")
def sound(embedded_gguf: Path) -> Path:
    """The folder with the joined weights and their packed int8."""
    if cpu.why_unavailable() is None:
        load_packed(open_checkpoint(embedded_gguf), "int8")
    return embedded_gguf.parent


@pytest.fixture
def cached(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own with links to them, in which a test replaces what it damages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = embedded.default_folder(tmp_path / "gemma3-270m")
    folder.mkdir(parents=True, mode=0o755)
    for name in (embedded.FILE_NAME, "packed-int8.safetensors"):
        if (sound / name).exists():
            _link(sound / name, folder / name)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def damage(path: Path, change: Callable[[Path], None]) -> None:
    """A copy of its own in the place of the link, with ``change`` made to it and the time that it had."""
    whole, times = path.with_suffix(".whole"), path.stat()
    path.rename(whole)
    shutil.copy2(whole, path)
    whole.unlink()
    change(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip_a_bit(path: Path) -> None:
    """Far behind all headers, in a page that no start samples."""
    with path.open("r+b") as file:
        file.seek(200_000_000 // 262_144 * 262_144 + 100_000)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def wrong(findings: Sequence[Finding]) -> list[str]:
    return [each.subject for each in findings if each.state is State.WRONG]


@needs_core
def test_all_is_well(cached: Path) -> None:
    findings = list(examine(None, 8 << 30))
    assert wrong(findings) == [], findings
    subjects = [each.subject for each in findings]
    assert {"weights", "packed int8", "tokenizer", "int8 on portable", "batches", "speed"} <= set(subjects)


@pytest.mark.parametrize("change", [flip_a_bit, cut_off])
def test_damaged_weights(cached: Path, change: Callable[[Path], None]) -> None:
    damage(cached / embedded.FILE_NAME, change)
    assert wrong(list(examine(None, 8 << 30))) == ["weights"]
    assert (cached / embedded.FILE_NAME).stat().st_nlink == 1  # it was looked at, not joined anew


@needs_core
@pytest.mark.parametrize("change", [flip_a_bit, cut_off])
def test_damaged_packed_weights(cached: Path, change: Callable[[Path], None]) -> None:
    damage(cached / "packed-int8.safetensors", change)
    assert wrong(list(examine(None, 8 << 30))) == ["packed int8"]


@pytest.fixture
def checkpoint(cached: Path) -> Checkpoint:
    return open_checkpoint(cached / embedded.FILE_NAME)


@needs_core
def test_weights_that_were_packed_wrongly(cached: Path, checkpoint: Checkpoint) -> None:
    """The file is whole, and its hash fits: only what it computes tells."""
    layout = PackedLayout.of(checkpoint.config, "int8")
    file = PackedFile(checkpoint, layout)
    packed = file.open()
    assert packed is not None
    data = memoryview(bytearray(packed.data))
    views = layout.views(data)
    views["layers.9.down.panels"][:] = views["layers.10.down.panels"]
    file.keep(data)
    assert wrong(list(files.check_packed(checkpoint))) == []
    assert wrong(list(arithmetic.check_logits(core(checkpoint), read_reference()))) != []


def core(checkpoint: Checkpoint) -> "CpuModel":
    from gemma3.cpu.model import CpuModel

    return CpuModel(checkpoint.config, load_packed(checkpoint, "int8"))


Fault = Callable[["Floats", tuple[object, ...]], "Floats"]


@needs_core
@pytest.mark.parametrize(
    ("fault", "num_wrong"),
    [
        (lambda values, _: values, 0),
        (lambda values, _: values * np.float32(1.2), 1),
        (lambda values, _: np.full_like(values, np.nan), 2),
        (lambda values, args: values * np.float32(1 + 1e-6 * (len(args[1]) > 1)), 1),
    ],
    ids=["none", "a kernel that scales", "a kernel that gives NaN", "a batch that changes its texts"],
)
def test_a_wrong_kernel(checkpoint: Checkpoint, fault: Fault, num_wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = core(checkpoint), read_reference()
    right = type(model).logits
    monkeypatch.setattr(type(model), "logits", lambda self, *args: fault(right(self, *args), args))
    found = [*arithmetic.check_logits(model, reference), *arithmetic.check_batches(model, reference)]
    assert len(wrong(found)) == num_wrong


def test_another_tokenizer(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, reference = checkpoint.load_tokenizer(), read_reference()
    assert wrong(list(arithmetic.check_tokenizer(tokenizer, reference))) == []
    right = Gemma3Tokenizer.encode
    with monkeypatch.context() as patched:
        patched.setattr(Gemma3Tokenizer, "encode", lambda *args, **kwargs: [*right(*args, **kwargs)[:-1], 7])
        assert wrong(list(arithmetic.check_tokenizer(tokenizer, reference))) == ["tokenizer"]
    monkeypatch.setattr(Gemma3Tokenizer, "decode", lambda *_: "something else")
    assert wrong(list(arithmetic.check_tokenizer(tokenizer, reference))) == ["tokenizer"]


def test_a_cache_that_others_may_write(cached: Path) -> None:
    root = cached.parent
    assert wrong(list(files.check_cache_folders())) == []
    root.chmod(0o777)
    finding, *_ = files.check_cache_folders()
    assert finding.state is State.WRONG
    assert f"chmod go-w {root}" in finding.advice


def test_a_cache_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gemma3-270m").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert wrong(list(files.check_cache_folders())) == ["cache folder"]


def test_too_little_memory() -> None:
    assert wrong(list(machine.check_memory(512 << 20))) == ["memory"]
    assert wrong(list(machine.check_memory(8 << 30))) == []
    assert wrong(list(machine.check_memory(None))) == []


def test_no_core(cached: Path) -> None:
    """As on a machine without a compiler: the module is not there, in a process of its own."""
    absent = "import sys; sys.modules['gemma3.cpu._native'] = None"
    command = f"{absent}; from openai_api.doctor import main; sys.exit(main(['--json', '--port', '0']))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60, env=environment)
    assert run.returncode == 1, run.stderr
    found = json.loads(run.stdout)["findings"]
    assert [each["subject"] for each in found if each["state"] == "wrong"] == ["native core"]
    assert "tokenizer" in [each["subject"] for each in found]


def test_a_cache_that_root_has_filled(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service may only read it."""

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    (finding,) = files.check_cache_folders()
    assert finding.state is State.NOTE
    (cached / embedded.FILE_NAME).unlink()
    (finding,) = files.check_cache_folders()
    assert finding.state is State.WRONG


def test_weights_that_are_not_there(cached: Path) -> None:
    assert wrong(list(examine("./typo", 8 << 30))) == ["model"]


def test_a_check_that_breaks_is_a_finding(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[Finding]:
        raise RuntimeError("out of order")
        yield

    monkeypatch.setattr(arithmetic, "check_tokenizer", broken)
    monkeypatch.setattr(cpu, "why_unavailable", lambda: "it is left out here")
    findings = list(examine(None, 8 << 30))
    assert wrong(findings) == ["tokenizer", "native core"]
    assert "out of order" in next(each.says for each in findings if each.state is State.WRONG)


def test_clean_removes_what_is_kept(cached: Path) -> None:
    assert files.clean() > 200_000_000
    assert not cached.exists()


def test_the_port(capsys: pytest.CaptureFixture[str]) -> None:
    from openai_api.doctor import _about_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert wrong(list(_about_port(port))) == ["port"]
    assert wrong(list(_about_port(port))) == []


@pytest.mark.slow
def test_the_reference_is_what_torch_computes(embedded_gguf: Path) -> None:
    import torch

    from gemma3.torch_model.kv_cache import ContiguousKVCache
    from gemma3.torch_model.load import load_model

    reference: Reference = read_reference()
    model = load_model(open_checkpoint(embedded_gguf), dtype="float32")
    hidden_TD = model.step(torch.tensor(reference.token_ids), ContiguousKVCache(model.config))
    logprobs_RV = torch.log_softmax(model.compute_logits(hidden_TD)[reference.rows].double(), dim=-1)
    for row, stored in zip(logprobs_RV, reference.likeliest, strict=True):
        top = torch.topk(row, len(stored))
        assert top.values.tolist() == pytest.approx([logprob for _, logprob in stored], abs=2e-3)
        assert int(top.indices[0]) == stored[0][0] or float(top.values[0] - top.values[1]) < 1e-3
