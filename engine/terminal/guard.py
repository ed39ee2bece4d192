"""What stands around a program: streams that can be used, and one line with an exit status for
whatever ends it.

Owns both; knows no program and no model. ``main.py`` and the server run in it, in the main thread.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

WRONG_USE = 2
INTERRUPTED = 130  # as a shell names the end by Ctrl-C
READER_GONE = 141  # and by a closed pipe, as in "| head"

# What threads and shared libraries say when there is no memory for them.
_NO_MEMORY_WORDS = ("can't start new thread", "Cannot allocate memory", "failed to map segment")


def run_guarded(program: str, run: Callable[[], int]) -> int:
    """The exit status of ``run``, or that of what ended it: wrong use and every failure 2, with one
    line on stderr that begins with ``program``; Ctrl-C 130, a reader that has gone 141, both quiet.
    """
    prepare_streams()
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as programs have it while they import
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _status_of(run)
        write_output("")
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        status = READER_GONE
    except Exception as error:
        status = INTERRUPTED if _is_interrupt(error) else WRONG_USE
        if status != INTERRUPTED:
            say(f"{program}: error: {reason(error)}")
    _settle_errors()
    return status


def say(line: str) -> None:
    """Write a line to stderr, if there is anybody to read it."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def write_output(text: str) -> None:
    """Write to stdout now, not when a line is full. After an error all further text is dropped.

    Raises:
        BrokenPipeError: nobody reads it any more.
        OSError: it cannot be written; the text says so.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _drop(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, f"the standard output cannot be written: {error.strerror}") from None


def is_for_a_person(error: BaseException) -> bool:
    """Whether a person can put it right: wrong input, a file, too little memory. Else it is a bug."""
    return isinstance(error, ValueError | OSError | MemoryError) or _is_out_of_memory(error)


def reason(error: BaseException) -> str:
    """One line for a person; fields of the engine's options go by the names of their flags."""
    if _is_out_of_memory(error):
        return "there is not enough memory here (a limit may be set: see ulimit -v, or the container's)"
    if isinstance(error, OSError) and error.strerror:
        return _one_line(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, ValueError | OSError):
        from engine.flags import with_flag_names  # here, so that a guard is there before anything large

        return with_flag_names(_one_line(str(error)))
    return f"{type(error).__name__} at {_place(error)}: {_one_line(str(error))}"


def prepare_streams() -> None:
    """Give every stream that was closed a descriptor that fails, and let no byte of input or
    character of output be an error by itself: who reads input looks for what is no text.

    A closed descriptor would go to the next file or socket, which then got what is meant for the
    stream. Text for stderr is dropped.
    """
    _replace_if_closed("stdin", os.O_WRONLY, "r")
    _replace_if_closed("stdout", os.O_RDONLY, "w")
    _replace_if_closed("stderr", os.O_WRONLY, "w")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _replace_if_closed(name: str, flags: int, mode: str) -> None:
    if getattr(sys, name) is None:
        descriptor = os.open(os.devnull, flags)
        setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def _status_of(run: Callable[[], int]) -> int:
    try:
        return run()
    except SystemExit as stop:  # of argparse, which has said why
        return stop.code if isinstance(stop.code, int) else WRONG_USE


def _drop(stream: TextIO) -> None:
    """What is left of it would be a traceback, or another exit status, when the interpreter ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _settle_errors() -> None:
    """Lines of a log that could not be written change no exit status."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _drop(sys.stderr)


def _is_interrupt(error: Exception) -> bool:
    """A library in another language may tell of Ctrl-C by an error of its own: pydantic does, while it makes a schema."""
    return not is_for_a_person(error) and KeyboardInterrupt.__name__ in str(error)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    words = str(error) if isinstance(error, RuntimeError | ImportError | OSError) else ""
    return any(each in words for each in _NO_MEMORY_WORDS)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _place(error: BaseException) -> str:
    """File and line where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
