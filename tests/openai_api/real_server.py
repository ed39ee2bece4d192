"""The server as a person starts it: ``python main.py serve``, the real weights, a port of its own."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
READY = "Ready: "


@dataclass
class RealServer:
    process: "subprocess.Popen[str]"
    url: str
    model: str
    ready_s: float

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """End the process at once, if it still runs, and close its pipe."""
        self.process.kill()
        self.process.communicate(timeout=30)


def start_server(
    *args: str, timeout_s: float = 120, program: Sequence[str] = ("main.py", "serve"), log: Path | None = None
) -> RealServer:
    """``args`` are the server's flags; ``program`` is what Python runs; stderr goes to the file ``log``."""
    began = time.monotonic()
    with open(log or os.devnull, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *program, "--port", "0", *args],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    line = _first_line(process, timeout_s)
    if not line.startswith(READY):
        process.kill()
        raise AssertionError(f"the server did not become ready: {line!r}")
    model, _, url = line.removeprefix(READY).strip().partition(" at ")
    return RealServer(process, url, model, time.monotonic() - began)


def _first_line(process: "subprocess.Popen[str]", timeout_s: float) -> str:
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=timeout_s)
    except queue.Empty:
        process.kill()
        raise AssertionError(f"the server was not ready within {timeout_s} s") from None


@contextmanager
def real_server(*args: str) -> Iterator[RealServer]:
    server = start_server(*args)
    try:
        yield server
    finally:
        server.kill()
