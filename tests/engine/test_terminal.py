"""What the programs share at a terminal: the guard around them, the choice of sampling, and one written answer."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any, cast

import pytest
from pydantic_core import SchemaError

from engine.errors import StepError
from engine.flags import is_text, with_flag_names
from engine.llm_engine import LLMEngine
from engine.outputs import FinishReason, RequestOutput, SequenceDelta
from engine.sampling_params import SamplingParams
from engine.terminal import guard
from engine.terminal.answers import AnswerWriter
from engine.terminal.sampling import ChosenSampling, choose_sampling
from gemma3.progress import ProgressLines, loading_news


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("two\nlines"), 2, "two lines"),
        (ValueError("max_num_seqs=0 is not allowed"), 2, "--max-num-seqs 0 is not allowed"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 2, "/a: Permission denied"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "not enough memory"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("can't start new thread"), 2, "not enough memory"),
        (ImportError("x.so: failed to map segment from shared object"), 2, "not enough memory"),
        (OSError("x.so: failed to map segment from shared object"), 2, "not enough memory"),
        (KeyError("bug"), 2, "KeyError at test_terminal.py:"),
        (KeyboardInterrupt(), 130, None),
        (SchemaError("Error building `literal` serializer: KeyboardInterrupt: "), 130, None),  # as pydantic tells of it
        (FileNotFoundError(errno.ENOENT, "No such file", "KeyboardInterrupt.csv"), 2, "KeyboardInterrupt.csv"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, None),
        (SystemExit(7), 7, None),
    ],
    ids=repr,
)
def test_whatever_ends_a_program_is_a_status_and_a_line(
    error: BaseException, status: int, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard.run_guarded("prog", raising(error)) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (said is not None)
    if said is not None:
        assert lines[0].startswith("prog: error: ")
        assert said in lines[0]


def test_ctrl_c_is_an_exception_from_the_guard_on() -> None:
    """Before it programs let the system end them, so that no import has a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert guard.run_guarded("prog", lambda: os.kill(os.getpid(), signal.SIGINT) or 0) == 130
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_what_stderr_did_not_take_is_no_failure() -> None:
    """Python ends with 120 if it cannot write out what is left in a stream."""
    program = "import sys; from engine.terminal.guard import run_guarded\n"
    program += "sys.exit(run_guarded('prog', lambda: 0 * sys.stderr.buffer.write(b'left')))"
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", program], stderr=full, env=buffered, timeout=60).returncode == 0


def test_what_a_person_can_put_right() -> None:
    assert all(guard.is_for_a_person(error) for error in (ValueError(), OSError(), MemoryError()))
    assert guard.is_for_a_person(RuntimeError("can't start new thread"))
    assert not any(guard.is_for_a_person(error) for error in (RuntimeError("bug"), KeyError()))


def test_fields_go_by_the_names_of_their_flags() -> None:
    told = with_flag_names("quantization='int8' and dtype='float32' exclude each other; top_k=3 is no option")
    assert told == "--quantization 'int8' and --dtype 'float32' exclude each other; top_k=3 is no option"


def test_text() -> None:
    assert is_text("caf\u00e9 \U0001f600")
    assert not is_text(b"caf\xe9".decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("given", "from_checkpoint", "expected"),
    [
        ({}, {}, (0, 0, 1, 1.15)),
        ({"temperature": 0.0}, {}, (0, 0, 1, 1)),
        ({"top_k": 5}, {}, (0, 5, 1, 1)),
        ({}, {"temperature": 0.7, "top_k": 64, "top_p": 0.95}, (0.7, 64, 0.95, 1)),
        ({}, {"top_k": 64}, (1, 64, 1, 1)),
        ({"temperature": 0.0, "repetition_penalty": 1.3}, {"top_k": 64}, (0, 64, 1, 1.3)),
    ],
)
def test_sampling(given: dict[str, float], from_checkpoint: dict[str, float], expected: tuple[float, ...]) -> None:
    params = choose_sampling(given, from_checkpoint, seed=3).params
    assert (params.temperature, params.top_k, params.top_p, params.repetition_penalty) == expected
    assert params.seed == 3


class ScriptedEngine:
    """Says two tokens, then whatever it is told to raise."""

    info = type("Info", (), {"max_model_len": 64})

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.params: SamplingParams | None = None

    def stream(self, _prompt: object, params: SamplingParams) -> Iterator[RequestOutput]:
        self.params = params
        yield self._output("one ", None)
        if self.error is not None:
            raise self.error
        yield self._output("two", FinishReason.LENGTH)

    def _output(self, text: str, reason: FinishReason | None) -> RequestOutput:
        delta = SequenceDelta(index=0, text=text, token_ids=(5,), finish_reason=reason)
        return RequestOutput(request_id="r", deltas=(delta,), finished=reason is not None, num_prompt_tokens=1)


def writer(engine: ScriptedEngine) -> AnswerWriter:
    return AnswerWriter(
        engine=cast(LLMEngine, engine),
        sampling=ChosenSampling(SamplingParams(temperature=0.5), "test"),
        max_tokens=100,
        began_s=time.perf_counter(),
        loaded_s=time.perf_counter(),
        shows_figures=True,
    )


def test_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    engine = ScriptedEngine(None)
    answer = writer(engine).write([1, 2], stop=["x"])
    assert (answer.text, answer.num_tokens, answer.finish_reason) == ("one two", 2, FinishReason.LENGTH)
    assert capsys.readouterr().out == "one two\n"
    assert engine.params == SamplingParams(temperature=0.5, max_tokens=62, stop=("x",))


def test_ctrl_c_ends_an_answer_and_keeps_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    answer = writer(ScriptedEngine(KeyboardInterrupt())).write([1])
    assert (answer.text, answer.finish_reason) == ("one ", None)
    assert capsys.readouterr().out == "one \n"


def test_a_step_that_fails_is_one_for_the_guard() -> None:
    with pytest.raises(ValueError, match="in its step"):
        writer(ScriptedEngine(StepError("failed in its step"))).write([1])


def test_lines_of_progress_come_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock = iter([0.0, 1.0, 2.0, 3.0, 4.5, 100.0]).__next__
    lines = ProgressLines("Loading", interval_s=2.0, clock=clock)
    for num_done in range(1, 7):
        lines(num_done, 6)
    assert [record.message for record in caplog.records] == ["Loading: 50 %", "Loading: 83 %", "Loading: 100 %"]


def test_a_server_shows_a_bar_at_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stderr(StringIO):
        is_terminal = False

        def isatty(self) -> bool:
            return self.is_terminal

    seen = Stderr()
    monkeypatch.setattr("sys.stderr", seen)
    for num_done in range(1, 101):
        loading_news()(num_done, 100)
    assert seen.getvalue() == ""
    seen.is_terminal = True
    bar = loading_news()
    for num_done in (0, 50, 100):
        bar(num_done, 100)
    assert "Loading:   0%" in seen.getvalue()
    assert seen.getvalue().endswith("\r"), "the bar goes with the last step: the next line is whole"


def test_output_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            raise OSError(errno.EBADF, name)

    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(OSError, match="standard output cannot be written: No space left"):
        guard.write_output("x")
