"""The direction of imports, kept by reading the source."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "gemma3": {"engine", "openai_api", "fastapi", "pydantic", "uvicorn", "starlette"},
    "engine": {"openai_api", "fastapi", "pydantic", "uvicorn", "starlette"},
    "openai_api": {"torch"},
}
# Everything that may import torch at module level; the rest imports it where the torch path runs.
TORCH_MODULES = {
    f"gemma3/torch_model/{name}.py" for name in ("layers", "attention", "kv_cache", "model", "generate", "load")
}
TORCH_MODULES |= {"engine/runners/torch_runner.py", "engine/runners/torch_sampler.py"}
# numpy likewise: it costs a tenth of a second of every start.
NUMPY_MODULES = {"gemma3/files/gguf_dequant.py", "gemma3/cpu/packing.py", "gemma3/cpu/balancing.py"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of all imports below ``tree``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def at_module_level(tree: ast.Module) -> ast.Module:
    """Only what runs on import: neither function bodies nor ``if TYPE_CHECKING`` blocks."""
    return ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], type_ignores=[])


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_do_not_import_upwards(package: str) -> None:
    for path in modules(package):
        assert not imported(ast.parse(path.read_text())) & FORBIDDEN[package], path


@pytest.mark.parametrize("package", ["gemma3", "engine"])
def test_torch_and_numpy_are_imported_only_where_they_run(package: str) -> None:
    for path in modules(package):
        loaded = imported(at_module_level(ast.parse(path.read_text())))
        name = path.relative_to(ROOT).as_posix()
        assert ("torch" in loaded) == (name in TORCH_MODULES), name
        assert ("numpy" in loaded) == (name in NUMPY_MODULES), name


def test_the_programs_load_nothing_large_before_they_must() -> None:
    heavy = ("torch", "numpy", "tqdm", "httpx", "safetensors", "transformers", "huggingface_hub.hf_api")
    code = f"import main, engine.loading, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_the_native_path_loads_neither_torch_nor_numpy(tmp_path: Path) -> None:
    """Once the weights are packed: from the command line to the last token."""
    pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
    from tests.engine.engines import tiny_checkpoint

    arguments = [
        "abc",
        "--quantization",
        "int8",
        "--max-new-tokens",
        "3",
        "--model",
        str(tiny_checkpoint(tmp_path / "m")),
    ]
    code = f"import main, sys; main.main({arguments!r}); print([n for n in ('torch', 'numpy') if n in sys.modules])"
    for expected in ("['numpy']", "[]"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_mutable_module_state(package: str) -> None:
    """Constants are upper case; nothing at module level is rebound by a ``global`` statement."""
    for path in modules(package):
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), path
