"""``python main.py`` as a process: real text, and one line with exit status 2 for everything bad."""

import io
import os
import pickle
import pty
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openai_api.command import main
from tests.gemma3 import tiny
from tests.gemma3.program import ROOT, Run, run_main
from tests.gemma3.without_unix import hide_unix

MAX_BAD_S = 2.0
MAX_BAD_BYTES = 64 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = tiny.random_shape(random.Random(2)) | {"max_position_embeddings": 64}
    return tiny.save_directory(tmp_path_factory.mktemp("main") / "model", tiny.oracle_model(shape, 2))


def run_tiny(folder: Path, *args: str, text: str = "", stdin: int = subprocess.PIPE) -> Run:
    """With a cache of its own, so that nothing of the tests stays in the person's."""
    env = {"XDG_CACHE_HOME": str(folder.parent / "cache")}
    return run_main(*args, "--model", str(folder), env=env, text=text, stdin=stdin)


@pytest.mark.parametrize("quantization", ["none", "auto"])
def test_real_text(embedded_gguf: Path, quantization: str) -> None:
    arguments = ("--max-tokens", "24", "--temperature", "0", "--quantization", quantization)
    arguments += ("--model", str(embedded_gguf))
    run = run_main("The capital of France is", *arguments)
    assert run.status == 0, run.err
    text = "The capital of France is the capital of the country of France."
    assert run.out.startswith(text)
    assert "tokens/s" in run.err
    assert "first token" in run.err


def test_chat_with_the_real_base_model(embedded_gguf: Path) -> None:
    """The transcript makes the base model answer, ``/reset`` forgets, ``/exit`` ends."""
    lines = "What is the capital of France?\n/reset\nWhat is the capital of Italy?\n/exit\nnever read\n"
    run = run_main("chat", "--max-new-tokens", "24", "--model", str(embedded_gguf), text=lines)
    assert run.status == 0, run.err
    assert "Paris" in run.out
    assert "Rome" in run.out
    assert "User:" not in run.out
    assert "(forgotten)" in run.err


def test_quiet_prints_text_alone(folder: Path) -> None:
    run = run_tiny(folder, "abc", "--quiet", "--max-new-tokens", "5")
    assert (run.status, run.err) == (0, "")
    assert not run.out.startswith("abc")


def test_a_piped_text_is_continued(folder: Path) -> None:
    run, named = run_tiny(folder, text="a b\n"), run_tiny(folder, "a b")
    assert (run.status, run.out) == (0, named.out)
    assert run.out.startswith("a b")


def test_without_a_text_on_a_terminal_an_example_is_continued(folder: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        run = run_tiny(folder, "--max-new-tokens", "3", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert run.status == 0, run.err
    assert run.out.startswith("Once upon a time")
    (line,) = [line for line in run.err.splitlines() if "python main.py" in line]
    assert "text of your own" in line


@pytest.mark.parametrize("text", ["", " \n"], ids=repr)
def test_an_empty_pipe_is_one_line(folder: Path, text: str) -> None:
    assert "the standard input is empty" in one_line(run_tiny(folder, text=text))


def test_same_seed_same_text(folder: Path) -> None:
    settings = ("--temperature", "1", "--top-k", "50", "--top-p", "0.9", "--max-new-tokens", "20")
    assert (
        run_tiny(folder, "abc", "--seed", "4", *settings).out == run_tiny(folder, "abc", "--seed", "4", *settings).out
    )


def test_long_prompt_is_windowed_with_a_notice(folder: Path) -> None:
    run = run_tiny(folder, "x" * 200, "--max-new-tokens", "5")
    assert run.status == 0, run.err
    assert "has 201 tokens; only the last 59 fit" in run.err


def one_line(run: Run) -> str:
    assert run.status == 2, run.err
    assert run.out == ""
    assert "Traceback" not in run.err
    lines = run.err.strip().splitlines()
    assert lines[-1].startswith("main.py: error: ")
    return lines[-1]


@pytest.fixture(scope="module")
def plain_bytes() -> int:
    """What the program needs before it looks at any weights."""
    return run_main("x", "--model", "/no/such/path").peak_bytes


def bad_path(folder: Path, kind: str) -> Path:
    """A bad checkpoint of each kind whose message must come before torch is even imported."""
    path = folder / "bad"
    path.mkdir()
    if kind == "pickle":
        (path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    elif kind == "pickle as gguf":
        path = path / "model.gguf"
        torch.save({"a": torch.zeros(2)}, path)
    elif kind == "lfs":
        path = path / "model.gguf"
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif kind == "layers":
        (path / "config.json").write_text(
            '{"model_type": "gemma3_text", "hidden_size": 8, "num_hidden_layers": 1000000000}'
        )
        (path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    elif kind == "sparse":
        path = path / "model.gguf"
        with path.open("wb") as file:
            file.write(b"GGUF\x03\0\0\0" + b"\xff" * 16)
            file.truncate(1 << 32)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "holds no weights"),
        ("pickle", "only pickles"),
        ("pickle as gguf", "pickle"),
        ("lfs", "LFS"),
        ("layers", "num_hidden_layers=1000000000"),
        ("sparse", "model.gguf"),
    ],
)
def test_bad_checkpoints(tmp_path: Path, plain_bytes: int, kind: str, words: str) -> None:
    run = run_main("x", "--model", str(bad_path(tmp_path, kind)))
    assert words in one_line(run)
    assert run.wall_s < MAX_BAD_S
    assert run.peak_bytes < plain_bytes + MAX_BAD_BYTES


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("x", "--model", "/no/such/path"), "no such file or directory"),
        (("x", "--model", "not a name"), "not OWNER/NAME"),
        (("x", "--unknown"), "unrecognized arguments: --unknown (--help lists the flags"),
        ((), "the standard input is empty"),
        (("x", "--temperature", "3"), "'3' is not a number from 0 to 2"),
        (("x", "--temperature", "nan"), "'nan' is not a number"),
        (("x", "--top-p", "1.5"), "'1.5' is not a number from 0 to 1"),
        (("x", "--top-k", "-2"), "'-2' is not an integer from -1"),
        (("x", "--model", ""), "--model '': no such file"),
        (("x", "--max-new-tokens", "0"), "'0' is not an integer from 1"),
        (("x", "--dtype", "float16"), "invalid choice: 'float16'"),
        (("x", "--threads", "0"), "'0' is not an integer"),
        (("x", "--quantization", "int2"), "invalid choice: 'int2'"),
        (("x", "--quantization", "int8", "--dtype", "float32"), "exclude each other"),
        (("x", "--model", "./typo"), "--model './typo': no such file"),
        (("x", "--model", "~/typo"), "--model '~/typo': no such file"),
        (("x", "--model", "models/typo.gguf"), "--model 'models/typo.gguf': no such file"),
        (("x", "--repetition-penalty", "0"), "'0' is not a number above 0 to 10"),
        (("x", "--quiet", "--verbose"), "not allowed with argument --quiet"),
        (("x", "--device", "tpu"), "'tpu' is not auto, cpu, cuda or cuda:N"),
    ],
    ids=str,
)
def test_bad_arguments(
    args: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: what is shown is the parser's and the search's, not the start of an interpreter."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    status = main(args, program="main.py")
    captured = capsys.readouterr()
    assert words in one_line(Run(status, captured.out, captured.err, wall_s=0, peak_bytes=0))


@pytest.mark.parametrize(
    ("redirection", "status", "words"),
    [
        ("x | head -c 1", 141, ""),
        ("x >/dev/full", 2, "the standard output cannot be written: No space left on device"),
        ("x >&-", 2, "the standard output cannot be written: Bad file descriptor"),
        ("x 2>&-", 0, ""),
        ("- <&-", 2, "the standard input cannot be read: Bad file descriptor"),
        ("chat <&-", 2, "the standard input cannot be read: Bad file descriptor"),
        ("--help >/dev/full", 2, "the standard output cannot be written: No space left on device"),
        ("--version | true", 141, ""),
    ],
)
def test_streams_that_cannot_be_used(folder: Path, redirection: str, status: int, words: str) -> None:
    """One line or none, and no traceback. The pipe's reader has gone for sure: a second write is waited for."""
    command = (
        f'"$0" main.py --model "$1" --max-tokens 40 --temperature 1 --quiet {redirection}; exit ${{PIPESTATUS[0]}}'
    )
    env = os.environ | {"XDG_CACHE_HOME": str(folder.parent / "cache")}
    run = subprocess.run(
        ["bash", "-c", command, sys.executable, str(folder)], cwd=ROOT, env=env, capture_output=True, timeout=60
    )
    assert run.returncode == status
    assert run.stderr.decode() == (f"main.py: error: {words}\n" if words else "")


def test_bytes_that_are_no_text(folder: Path) -> None:
    for run in (run_tiny(folder, "a\udcff"), run_tiny(folder, "-", text="hello \udcff")):
        assert "bytes that are no UTF-8 text" in one_line(run)


def test_characters_that_the_terminal_lacks_are_replaced(folder: Path) -> None:
    env = {"XDG_CACHE_HOME": str(folder.parent / "cache"), "PYTHONIOENCODING": "ascii"}
    run = run_main("caf\u00e9", "--model", str(folder), "--max-tokens", "2", env=env)
    assert run.status == 0, run.err
    assert run.out.startswith("caf?")


def test_a_system_without_unixs_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run packs, the second finds what was packed; without a home too."""
    hide_unix(monkeypatch, tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    first, second = (run_main("x", "--model", str(folder), "--max-tokens", "2") for _ in range(2))
    assert (first.status, second.status, second.out) == (0, 0, first.out)
    assert "Packing" in first.err
    assert "Packing" not in second.err


def test_too_little_memory(folder: Path) -> None:
    """Wherever it runs out: while threads start, while libraries are loaded, while weights are."""
    for num_kib in (100_000, 200_000):
        command = f'ulimit -v {num_kib}; exec "$0" main.py x --model "$1" --quiet'
        run = subprocess.run(
            ["bash", "-c", command, sys.executable, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert re.match("main.py: error: (there is not enough memory here|Loading needs more memory)", run.stderr)
        assert len(run.stderr.splitlines()) == 1


def test_old_and_new_names_of_a_flag(folder: Path) -> None:
    old, new = run_tiny(folder, "abc", "--max-new-tokens", "5"), run_tiny(folder, "abc", "--max-tokens", "5")
    assert (old.status, old.out) == (0, new.out)


def test_every_help_text_is_a_sentence_with_the_default() -> None:
    run = run_main("--help")
    entries = [" ".join(entry.split()) for entry in re.split(r"\n  (?=-)", run.out.partition("options:")[2])[1:]]
    assert len(entries) >= 14
    for entry in entries:
        assert re.search(r" [A-Z].*default.*\.", entry), entry


def test_nan_weights(folder: Path, tmp_path: Path) -> None:
    oracle = tiny.oracle_model(tiny.random_shape(random.Random(2)), 2)
    tensors = tiny.weights_of(oracle)
    tensors["model.norm.weight"][0] = float("nan")
    bad = tiny.save_directory(tmp_path / "nan", oracle, tensors)
    assert "NaN" in one_line(run_tiny(bad, "x", "--quiet"))
    assert "NaN" in one_line(run_tiny(bad, "x", "--quiet", "--quantization", "none"))


def test_nothing_installed_says_how_to_get_weights(tmp_path: Path) -> None:
    """With an empty Hub cache and without the weights package (hidden by an isolated site directory)."""
    code = "import importlib.metadata as m\ndef hide(name):\n    raise m.PackageNotFoundError(name)\nm.distribution = hide\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    env = {
        "PYTHONPATH": str(tmp_path),
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(tmp_path),
    }
    run = run_main("x", env=env)
    message = one_line(run)
    for step in ("pip install", "accept the licence", "hf auth login", "--model PATH"):
        assert step in message
