"""Signals that end the server, on every system.

Owns which ones they are and how each system delivers them. Knows no server. Event loop.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Unix sends the first three, Windows the second and, for Ctrl-Break, the last.
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")


@contextmanager
def ending_signals(call: Callable[[signal.Signals], None]) -> Iterator[None]:
    """``call`` is called on the running loop with every signal that asks the process to end."""
    loop = asyncio.get_running_loop()
    found = (getattr(signal, name, None) for name in _NAMES)
    numbers = [number for number in found if number is not None and not _is_hangup_of_nohup(number)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        _handle(loop, number, call)
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


def is_hangup(number: signal.Signals) -> bool:
    """Whether the terminal is gone, which both its shell and the system tell."""
    return number.name == "SIGHUP"


def _is_hangup_of_nohup(number: signal.Signals) -> bool:
    """``nohup`` starts a program deaf to it, and so it stays."""
    return is_hangup(number) and signal.getsignal(number) is signal.SIG_IGN


def _handle(loop: asyncio.AbstractEventLoop, number: signal.Signals, call: Callable[[signal.Signals], None]) -> None:
    try:
        loop.add_signal_handler(number, call, number)
    except NotImplementedError:  # Windows: its loops have no handlers of their own

        def wake(*_: object) -> None:
            loop.call_soon_threadsafe(call, number)

        signal.signal(number, wake)
