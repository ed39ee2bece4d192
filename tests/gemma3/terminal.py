"""``main.py`` on a terminal of its own, as a person has it: keys in, the screen's text out."""

import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.gemma3.program import ROOT

# Makes the terminal that of its session, else Ctrl-C would be a character like others.
_START = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

CTRL_C, CTRL_D, UP, BACKSPACE = "\x03", "\x04", "\x1b[A", "\x7f"


class Terminal:
    """One run. ``screen`` is all that it has written so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process = process
        self.screen = ""
        self._descriptor = descriptor
        self._seen = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # of a terminal whose last program has ended
            while data := os.read(self._descriptor, 4096):
                self.screen += data.decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, text: str, timeout_s: float = 30) -> None:
        """``text`` after what was waited for before."""
        deadline_s = time.monotonic() + timeout_s
        while (found := self.screen.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline_s, f"no {text!r} in {self.screen[self._seen :]!r}"
            time.sleep(0.005)
        self._seen = found + len(text)

    def status(self) -> int:
        """Of the program's end."""
        status = self.process.wait(timeout=30)
        self._reader.join(timeout=30)
        return status


@contextmanager
def main_on_terminal(*args: str, env: dict[str, str]) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _START, str(ROOT / "main.py"), *args],
        env=os.environ | {"TERM": "xterm"} | env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(process, ours)
    try:
        yield terminal
    finally:
        process.kill()
        process.wait()
        terminal._reader.join()
        os.close(ours)
