"""What a start imports, told by processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.engines import tiny_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent


def last_line(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()[-1]


def test_the_programs_load_nothing_large_before_they_must() -> None:
    heavy = ("torch", "numpy", "tqdm", "httpx", "safetensors", "transformers", "huggingface_hub.hf_api")
    programs = "openai_api.command, engine.terminal.program, engine.loading"
    code = f"import {programs}, sys; print([name for name in {heavy} if name in sys.modules])"
    assert last_line(code) == "[]"


def test_the_native_path_loads_neither_torch_nor_numpy(tmp_path: Path) -> None:
    """Once the weights are packed: from the command line to the last token."""
    pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
    folder = str(tiny_checkpoint(tmp_path / "m"))
    arguments = ["abc", "--quantization", "int8", "--max-new-tokens", "3", "--model", folder]
    run = f"from openai_api.command import main; main({arguments!r})"
    code = f"import sys; {run}; print([n for n in ('torch', 'numpy') if n in sys.modules])"
    for expected in ("['numpy']", "[]"):
        assert last_line(code, XDG_CACHE_HOME=str(tmp_path)) == expected
