"""From options to an engine: which path computes, and what the engine says of itself."""

import random
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from engine.engine_options import EngineOptions
from engine.loading import LoadedEngine, load_engine
from engine.runners.torch_runner import TorchRunner
from gemma3 import __version__, cpu
from tests.engine.engines import GREEDY, run, tiny_checkpoint
from tests.gemma3 import tiny

NATIVE = "gemma3.cpu._native"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("loading") / "model")


def load(path: Path, **options: object) -> LoadedEngine:
    return load_engine(EngineOptions(model=str(path), kv_cache_memory=64 << 20, **options))  # type: ignore[arg-type]


def runner_of(engine: LoadedEngine) -> object:
    return engine.core._runner


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_the_native_core(path: Path, scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    native = pytest.importorskip(NATIVE, reason="the native core was not compiled")
    from engine.runners.cpu_runner import CpuRunner

    caplog.set_level("INFO", "gemma3")
    engine = load(path, quantization=scheme, threads=1)
    assert isinstance(runner_of(engine), CpuRunner)
    assert (engine.info.quantization, engine.info.dtype) == (scheme, "float32")
    weights, precision, isa, version = engine.info.system_fingerprint.split("-")
    assert len(weights) == 12
    assert (precision, version) == (scheme, __version__)
    assert isa == native.supported_isas()[-1]
    assert f"({scheme}-{isa})" in caplog.text
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Tokenizer")]
    assert lines == ["Tokenizer: Gemma's own pipeline"]
    assert len(run(engine, {"a": [2, 150]})["a"][0].token_ids) == GREEDY.max_tokens


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch(path: Path, dtype: str) -> None:
    engine = load(path, dtype=dtype)
    assert isinstance(runner_of(engine), TorchRunner)
    assert (engine.info.quantization, engine.info.dtype) == ("none", dtype)
    assert engine.info.system_fingerprint.split("-")[1:] == [dtype, __version__]


def test_without_a_compiler_torch_serves(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so; who asked for the core by name is told what is allowed."""
    monkeypatch.setitem(sys.modules, NATIVE, None)  # importing it fails as if it was not there
    assert cpu.why_unavailable() is not None
    caplog.set_level("INFO", "gemma3")
    engine = load(path, device="cpu")
    assert isinstance(runner_of(engine), TorchRunner)
    (line,) = [record.getMessage() for record in caplog.records if "not compiled" in record.getMessage()]
    assert line.startswith("Torch computes, in bfloat16: the native core was not compiled")
    with pytest.raises(ValueError, match="quantization='int8' is not available: the native core was not compiled"):
        load(path, quantization="int8")


@pytest.mark.parametrize(
    ("has_compiler", "has_headers", "words"),
    [
        (True, True, "'pip install -v' shows why"),
        (False, True, "this machine lacks a C++ compiler (g++)"),
        (True, False, "this machine lacks Python's headers (python3-dev)"),
        (False, False, "this machine lacks a C++ compiler (g++) and Python's headers (python3-dev)"),
    ],
)
def test_what_a_compilation_lacked_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, has_compiler: bool, has_headers: bool, words: str
) -> None:
    """A system's own Python comes without its headers."""
    if has_headers:
        (tmp_path / "Python.h").touch()
    monkeypatch.setitem(sys.modules, NATIVE, None)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if has_compiler else None)
    reason = cpu.why_unavailable()
    assert reason is not None
    assert reason.endswith(f" ({words})")


class CoreOfAnotherSystem:
    """An import finder, for before that of an editable install."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == NATIVE:
            raise ImportError("GLIBC_2.99 not\nfound")


def test_a_core_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that was compiled for another system."""
    monkeypatch.delitem(sys.modules, NATIVE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [CoreOfAnotherSystem(), *sys.meta_path])
    assert cpu.why_unavailable() == "the native core cannot be loaded (GLIBC_2.99 not found)"


def test_keys_and_values_of_the_core_are_bfloat16(path: Path) -> None:
    """So twice as many blocks fit as in float32."""
    pytest.importorskip(NATIVE, reason="the native core was not compiled")
    native, exact = (load(path, quantization=q, dtype=d) for q, d in (("int8", "auto"), ("none", "float32")))
    half, whole = (engine.core.scheduler._kv.counts for engine in (native, exact))
    assert half.num_sliding == pytest.approx(2 * whole.num_sliding, rel=0.01)


@pytest.mark.parametrize("num_layers", [1, 5, 6])
def test_a_model_without_a_global_layer(tmp_path: Path, num_layers: int) -> None:
    shape = tiny.random_shape(random.Random(1)) | {"num_hidden_layers": num_layers}
    engine = load(tiny.save_directory(tmp_path / "model", tiny.oracle_model(shape, 1)))
    assert len(run(engine, {"a": [2, 150]})["a"][0].token_ids) == GREEDY.max_tokens
