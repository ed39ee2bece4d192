"""``gemma3-server``: which program a command line means, the names of it, and what a shell completes."""

import subprocess
import sys
from pathlib import Path

import pytest

from openai_api.command import main

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("words", "prefix"),
    [
        (["--no-such-flag"], "gemma3-server: error: "),
        (["x", "--max-tokens", "0"], "gemma3-server: error: "),
        (["serve", "--port", "x"], "gemma3-server serve: error: "),
        (["ask", "--prompt", " "], "gemma3-server ask: error: "),
        (["doctor", "--port", "x"], "gemma3-server doctor: error: "),
        (["--print-completion"], "gemma3-server: error: --print-completion takes one of bash, "),
        (["--print-completion", "cmd"], "gemma3-server: error: --print-completion takes one of bash, "),
    ],
    ids=str,
)
def test_each_program_goes_by_its_name(words: list[str], prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(prefix)


@pytest.mark.parametrize("words", [[], ["serve"], ["ask"], ["doctor"]], ids=str)
def test_help_and_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--version"]) == 0
    assert capsys.readouterr().out.startswith("gemma3-270m-server ")
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['gemma3-server', *words])} ")


def test_as_a_module_from_another_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openai_api", "ask", "--url", "http://127.0.0.1:9"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stdout) == (3, "")
    assert "start one with: gemma3-server serve" in run.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gemma3-server ser", ["serve"]),
        ("gemma3-server doctor --cl", ["--clean"]),
        ("gemma3-server serve --max-num-s", ["--max-num-seqs"]),
        ("gemma3-server ask --sch", ["--schema"]),
        ("gemma3-server chat --quantization int", ["int8", "int4"]),
    ],
)
def test_bash_completes(line: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As bash calls what is registered for a command: with the words, and the place of the cursor behind them."""
    assert main(["--print-completion", "bash"]) == 0
    (tmp_path / "completion.bash").write_text(capsys.readouterr().out)
    words = line.split()
    ask = f"""
        source completion.bash
        COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT={len(line)}
        "$(complete -p gemma3-server | sed -E 's/.*-F ([^ ]+) .*/\\1/')" gemma3-server '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (run.stdout.split(), run.stderr) == (expected, "")
