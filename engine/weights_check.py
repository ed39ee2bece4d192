"""The full check of what was loaded, beside the engine that already computes with it.

A start only samples the packed weights: reading all of them would double it. Owns the thread, which
keeps nothing of the engine alive, and when it begins.
"""

import logging
import threading
from collections.abc import Callable

from engine.loading import LoadedEngine

log = logging.getLogger("gemma3")


def check_in_background(loaded: LoadedEngine, report: Callable[[ValueError], None], *, delay_s: float) -> None:
    """Begin after ``delay_s``. ``report`` is called on that thread if the weights are damaged, which is logged.

    A check that somebody writes to the file for does not wait so long. It ends with the process.
    """
    if loaded.check_weights is None:
        return
    arguments = (loaded.check_weights, delay_s, report)
    threading.Thread(target=_check, args=arguments, name="weights-check", daemon=True).start()


def _check(check: Callable[[float], None], delay_s: float, report: Callable[[ValueError], None]) -> None:
    try:
        check(delay_s)
    except ValueError as error:
        log.error("%s", error)
        report(error)
