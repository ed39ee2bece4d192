"""``python main.py chat`` on a terminal and from a pipe: lines, pastes, commands, and the words around answers."""

import random
import readline
import sys
from pathlib import Path

import pytest

from tests.gemma3 import tiny
from tests.gemma3.program import Run, run_main
from tests.gemma3.terminal import BACKSPACE, CTRL_C, CTRL_D, UP, Terminal, main_on_terminal

FIGURES = "first token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = tiny.random_shape(random.Random(2)) | {"max_position_embeddings": 2048}
    oracle = tiny.oracle_model(shape, 2)
    return tiny.save_directory(tmp_path_factory.mktemp("chat") / "model", oracle)


def arguments(folder: Path, *more: str) -> tuple[str, ...]:
    return ("chat", "--model", str(folder), "--max-tokens", "2", *more)


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(folder.parent / "cache"), **more}


def forget(terminal: Terminal, *, keys: str = "/reset\r") -> None:
    terminal.type(keys)
    terminal.wait_for("(forgotten)")


def test_a_terminal_edits_lines_and_takes_a_paste_as_one_message(folder: Path) -> None:
    with main_on_terminal(*arguments(folder, "--verbose"), env=environment(folder)) as terminal:
        terminal.wait_for("> ")
        terminal.type("\x1b[200~one\rtwo\rthree\x1b[201~\r")
        terminal.wait_for(FIGURES)
        forget(terminal, keys=f"/resex{BACKSPACE}t\r")
        assert terminal.screen.count(FIGURES) == 1
        forget(terminal, keys=f"{UP}\r")
        terminal.type("half-typed")
        terminal.wait_for("half-typed")
        terminal.type(CTRL_C)
        terminal.wait_for("(/exit or Ctrl-D ends)")
        forget(terminal)
        terminal.type(CTRL_D)
        assert terminal.status() == 0
    assert "Traceback" not in terminal.screen
    # The terminal was asked to mark pastes; Apple's libedit knows no such thing.
    assert "\x1b[?2004h" in terminal.screen or "libedit" in str(readline.__doc__)


def test_a_paste_that_nothing_marks_is_one_message(folder: Path, tmp_path: Path) -> None:
    """Without readline, as on a system that has none, a terminal gives one line at a time."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['readline'] = None\n")
    env = environment(folder, PYTHONPATH=f"{tmp_path}:{':'.join(path for path in sys.path if path)}")
    with main_on_terminal(*arguments(folder, "--verbose"), env=env) as terminal:
        terminal.wait_for("> ")
        terminal.type("one\ntwo\nthree\n")
        terminal.wait_for(FIGURES)
        forget(terminal)
        assert terminal.screen.count(FIGURES) == 1
        terminal.type("/exit\n")
        assert terminal.status() == 0


def chat(folder: Path, text: str, *more: str) -> Run:
    run = run_main(*arguments(folder, *more), env=environment(folder), text=text)
    assert run.status == 0, run.err
    return run


def test_commands_and_words(folder: Path) -> None:
    """From a pipe each line is a message, and three double quotes are around one of several."""
    lines = '/help\n/nope now\n/usr/bin is a path\n /nope\n"""two\nlines"""\n\n/exit\nnever read\n'
    run = chat(folder, lines, "--verbose")
    assert "/reset  forget" in run.err
    assert "(/nope is no command; /help lists them)" in run.err
    assert run.err.count(FIGURES) == 3
    assert "(cut after 2 tokens; --max-tokens N allows more)" in run.err
    assert "is a base model" in run.err
    assert "Sampling: temperature 0, top-k 0, top-p 1, repetition-penalty 1.15" in run.err


def test_figures_only_on_demand(folder: Path) -> None:
    assert FIGURES not in chat(folder, "hello\n").err
    assert chat(folder, "hello\n", "--quiet").err == ""


def test_what_is_no_text_is_replaced_and_the_chat_goes_on(folder: Path) -> None:
    text = b"hello \xff\nnext\n".decode(errors="surrogateescape")
    run = chat(folder, text, "--verbose")
    assert "(what is no UTF-8 in this message was replaced)" in run.err
    assert run.err.count(FIGURES) == 2
