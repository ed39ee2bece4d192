"""Runs ``main.py`` as a person would, in a process of its own."""

import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Run:
    status: int
    out: str
    err: str
    cpu_s: float
    peak_bytes: int


def run_main(
    *args: str,
    env: dict[str, str] | None = None,
    timeout_s: float = 120,
    text: str = "",
    stdin: int = subprocess.PIPE,
) -> Run:
    """Run ``python main.py ARGS`` with ``text`` piped in, unless ``stdin`` is a file descriptor.

    ``cpu_s`` is the processor time of that process, ``peak_bytes`` its largest resident memory.
    """
    began_s = _cpu_s_of_children()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *args],
        env=os.environ | (env or {}),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    ) as process:
        watch = _PeakMemory(process.pid)
        try:
            out, err = process.communicate(text if stdin == subprocess.PIPE else None, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        peak_bytes = watch.stop()
    return Run(process.returncode, out, err, _cpu_s_of_children() - began_s, peak_bytes)


def _cpu_s_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _PeakMemory:
    """Samples ``VmHWM`` of a process until it ends (Linux; 0 elsewhere)."""

    def __init__(self, pid: int) -> None:
        import threading

        self._path, self._peak_kib, self._stop = Path(f"/proc/{pid}/status"), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            try:
                lines = self._path.read_text().splitlines()
            except OSError:
                return
            self._peak_kib = max(
                [self._peak_kib, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))]
            )

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._peak_kib << 10
