"""The grammars' table of the vocabulary, made beside the engine when nobody is being served.

Making it takes a second or two, for all of which the library holds the GIL: every stream would
stand still. Owns the thread and when it begins; it keeps nothing of the engine alive.
"""

import logging
import threading
import time
import weakref

from engine.engine_core import EngineCore
from engine.grammar.compiler import GrammarCompiler

DELAY_S = 0.5  # a start is not over before the first answers
PATIENCE_S = 60.0  # then it is made beside whoever is served: the first grammar would have to wait for it

log = logging.getLogger("gemma3")


def build_when_idle(grammars: GrammarCompiler, core: EngineCore) -> threading.Thread:
    """Return the thread at once; it ends with the process."""
    arguments = (grammars, weakref.ref(core))
    thread = threading.Thread(target=_build, args=arguments, name="vocabulary-table", daemon=True)
    thread.start()
    return thread


def _build(grammars: GrammarCompiler, core: "weakref.ref[EngineCore]") -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    time.sleep(DELAY_S)
    while _is_busy(core()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    try:
        if core() is not None:
            grammars.build()
    except Exception:  # each grammar will be refused with the same
        log.exception("Grammars: no table of the vocabulary could be made")


def _is_busy(core: EngineCore | None) -> bool:
    return core is not None and core.has_unfinished_requests
