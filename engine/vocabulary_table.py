"""The grammars' table of the vocabulary, made beside the engine when nobody is being served.

Making it takes a second or two, for all of which the library holds the GIL: every stream would
stand still. Owns the thread, when it begins, and that it is over when the engine is: a thread still
inside the library when the interpreter is taken apart is a segmentation fault.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine.engine_core import EngineCore
from engine.grammar.compiler import GrammarCompiler

DELAY_S = 0.5  # a start is not over before the first answers
POLL_S = 0.05
PATIENCE_S = 60.0  # then it is made beside whoever is served: the first grammar would have to wait for it

log = logging.getLogger("gemma3")


@contextmanager
def built_when_idle(grammars: GrammarCompiler, core: EngineCore) -> Iterator[threading.Thread]:
    """Made beside what the caller does with ``core``. Who ends before it began gets none, who ends
    while it is made waits for it.
    """
    is_over = threading.Event()
    thread = threading.Thread(target=_build, args=(grammars, core, is_over), name="vocabulary-table", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        is_over.set()
        thread.join()


def _build(grammars: GrammarCompiler, core: EngineCore, is_over: threading.Event) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    is_over.wait(DELAY_S)
    while core.has_unfinished_requests and time.monotonic() < deadline_s and not is_over.wait(POLL_S):
        pass
    if is_over.is_set():
        return
    try:
        grammars.build()
    except Exception:  # each grammar will be refused with the same
        log.exception("Grammars: no table of the vocabulary could be made")
