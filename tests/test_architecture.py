"""The direction of imports, kept by reading the source."""

import ast
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
TORCH_MODULES = {"layers", "attention", "kv_cache", "model", "generate", "weights"}


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


@pytest.mark.parametrize("path", modules("gemma3"), ids=lambda path: path.stem)
def test_torch_is_imported_only_where_it_runs(path: Path) -> None:
    loads_torch = "torch" in imported(at_module_level(ast.parse(path.read_text())))
    assert loads_torch == (path.stem in TORCH_MODULES)


def test_opening_a_checkpoint_loads_no_torch() -> None:
    code = "import main, sys; assert 'torch' not in sys.modules; assert 'huggingface_hub.hf_api' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_mutable_module_state(package: str) -> None:
    """Constants are upper case; nothing at module level is rebound by a ``global`` statement."""
    for path in modules(package):
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), path
