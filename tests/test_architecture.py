"""The direction of imports, kept by reading the source. Deferred imports and those for type checkers count too.

Written for ``unittest``, so that these rules hold wherever Python is, without pytest, torch or weights.
"""

import ast
import sys
import unittest
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "gemma3": {"engine", "openai_api", "fastapi", "pydantic", "uvicorn", "starlette"},
    "engine": {"openai_api", "fastapi", "pydantic", "uvicorn", "starlette"},
    "openai_api": {"torch"},
}
# Whom a folder may import from, beside the modules that lie directly in a package.
DIRECTION = {
    "gemma3/torch_model": {"gemma3/checkpoints", "gemma3/text"},
    "gemma3/cpu": {"gemma3/checkpoints", "gemma3/files"},
    "gemma3/checkpoints": {"gemma3/text", "gemma3/files"},
    "gemma3/text": {"gemma3/files"},
    "gemma3/files": set(),
    "engine/runners": set(),
    "engine/grammar": set(),
    "engine/doctor": set(),
    "engine/terminal": set(),
    "openai_api/endpoints": {"openai_api/answer", "openai_api/request"},
    "openai_api/answer": {"openai_api/request"},
    "openai_api/routing": {"openai_api/endpoints", "openai_api/answer", "openai_api/request", "openai_api/batch"},
    "openai_api/batch": {"openai_api/endpoints", "openai_api/answer", "openai_api/request"},
    "openai_api/request": set(),
    "openai_api/transport": set(),
}
# Importing torch takes over a second; it stays where it computes.
TORCH_PLACES = ("gemma3/torch_model/", "engine/runners/torch_")
# numpy at module level costs a tenth of a second of every start.
NUMPY_MODULES = {
    "gemma3/files/block_format.py",
    "gemma3/files/gguf_codebooks.py",
    "gemma3/files/gguf_dequant.py",
    "gemma3/cpu/packing.py",
    "gemma3/cpu/balancing.py",
}

Graph = Mapping[str, set[str]]


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    """Called by unittest alone, which would find nothing else here."""
    print("unittest runs the rules of imports; all tests run with: pip install -e '.[test]' && pytest", file=sys.stderr)
    return tests


def sources(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py*") if path.suffix in (".py", ".pyi"))


@cache
def tree_of(path: Path) -> ast.Module:
    """Parsed once for all rules; nobody changes it."""
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    """``gemma3.text.bpe``; a package's ``__init__.py`` has the package's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports below ``tree``; of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def top_level(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imported(tree)}


def at_module_level(tree: ast.Module) -> ast.Module:
    """Only what runs on import: neither function bodies nor ``if TYPE_CHECKING`` blocks."""
    return ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], type_ignores=[])


@cache
def module_graph() -> Graph:
    """Each module and the modules it imports: the longest part of an imported name that is a module."""
    trees = {name_of(path): tree_of(path) for package in FORBIDDEN for path in sources(package)}

    def module_of(name: str) -> str | None:
        while name and name not in trees:
            name = name.rpartition(".")[0]
        return name or None

    return {name: {m for each in imported(tree) if (m := module_of(each))} for name, tree in trees.items()}


def folder_of(module: str) -> str:
    """``gemma3/text``; a module that lies directly in a package stands for itself."""
    parts = module.split(".")
    is_in_folder = (ROOT / "/".join(parts[:2])).is_dir() and len(parts) > 1
    return "/".join(parts[:2]) if is_in_folder else module


def by_folder(graph: Graph) -> dict[str, set[str]]:
    folders: dict[str, set[str]] = {}
    for module, imports in graph.items():
        folder = folder_of(module)
        folders.setdefault(folder, set()).update({folder_of(other) for other in imports} - {folder})
    return folders


def circle(graph: Graph) -> list[str] | None:
    """One circle of imports, if there is any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return None


class Imports(unittest.TestCase):
    def test_packages_do_not_import_upwards(self) -> None:
        for package, forbidden in FORBIDDEN.items():
            for path in sources(package):
                assert not top_level(tree_of(path)) & forbidden, path

    def test_no_circle_between_modules(self) -> None:
        found = circle(module_graph())
        assert found is None, found

    def test_no_circle_between_folders(self) -> None:
        found = circle(by_folder(module_graph()))
        assert found is None, found

    def test_a_circle_is_found(self) -> None:
        assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) or ()) == {"b", "c"}

    def test_folders_import_in_one_direction(self) -> None:
        graph = by_folder(module_graph())
        folders = {name for name in graph if "/" in name}
        assert folders == set(DIRECTION)
        packages = set(FORBIDDEN)
        for folder, allowed in DIRECTION.items():
            package = folder.partition("/")[0]
            inside = {other for other in graph[folder] & folders if other.startswith(f"{package}/")}
            assert inside <= allowed, folder
            assert package not in graph[folder] & packages, f"{folder} imports from its package's __init__"

    def test_torch_is_imported_only_where_it_computes(self) -> None:
        for path in (path for package in FORBIDDEN for path in sources(package)):
            name = path.relative_to(ROOT).as_posix()
            if "torch" in top_level(tree_of(path)):
                assert name.startswith(TORCH_PLACES), name

    def test_numpy_is_imported_only_where_it_runs(self) -> None:
        for path in (path for package in ("gemma3", "engine") for path in sources(package) if path.suffix == ".py"):
            name = path.relative_to(ROOT).as_posix()
            loaded = top_level(at_module_level(tree_of(path)))
            assert ("numpy" in loaded) == (name in NUMPY_MODULES), name


class State(unittest.TestCase):
    def test_no_mutable_module_state(self) -> None:
        """Constants are upper case; nothing at module level is rebound by a ``global`` statement."""
        for path in (path for package in FORBIDDEN for path in sources(package)):
            tree = tree_of(path)
            assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), path


if __name__ == "__main__":
    unittest.main()
