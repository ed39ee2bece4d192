"""``gemma3-server``: all programs under one name; also ``python -m openai_api``, and ``main.py``.

    gemma3-server "Once upon a time"      continue a text; - continues the standard input
    gemma3-server chat                    talk (/help lists the commands)
    gemma3-server serve                   serve it with OpenAI's API
    gemma3-server ask                     ask a running server one question
    gemma3-server batch                   answer a file of rows
    gemma3-server doctor                  check the machine, the weights and the arithmetic

Owns which of them a command line means; each imports only what it needs, so that a text begins
without the server. Main thread.
"""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "gemma3-server"
PRINT_COMPLETION = "--print-completion"


def main(argv: Sequence[str] | None = None, *, program: str = PROGRAM, beside: Path | None = None) -> int:
    """The exit status: 0, 2 after one line on stderr, 130 after Ctrl-C, 141 when nobody reads any more.

    Args:
        argv: the words behind the program's name; ``None`` for those of the process.
        program: its name in the words of help and errors.
        beside: the folder in which a text's search for weights begins; ``None`` for the current one.
    """
    began_s = time.perf_counter()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While the rest is imported, Ctrl-C ends the process at once; ``run_guarded`` makes it an exception again.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from engine.terminal.guard import run_guarded

    words = sys.argv[1:] if argv is None else argv
    return run_guarded(program, lambda: _run(words, program, beside, began_s))


def _run(words: Sequence[str], program: str, beside: Path | None, began_s: float) -> int:
    match words[:1]:
        case ["serve"]:
            from openai_api.run import main as serve

            return serve(words[1:], program=f"{program} serve")
        case ["ask"]:
            from openai_api.ask import main as ask

            return ask(words[1:], program=f"{program} ask")
        case ["batch"]:
            from openai_api.batch.command import main as batch

            return batch(words[1:], program=f"{program} batch")
        case ["doctor"]:
            from openai_api.doctor import main as doctor

            return doctor(words[1:], program=f"{program} doctor")
        case [first] if first == PRINT_COMPLETION:
            from openai_api.completion import print_completion

            return print_completion(words[1:], program)
    from engine.terminal.program import write_text

    return write_text(words, program=program, beside=beside, began_s=began_s)
