"""The benchmark's side of ``protocol.py``: start an engine's process and ask it for runs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from workers.protocol import Timing

FOLDER = Path(__file__).resolve().parent.parent
# Our kernels and what oneDNN, below OpenVINO and CTranslate2, calls the same set.
ONEDNN_ISAS = {
    "avx2": "AVX2",
    "avxvnni": "AVX2_VNNI",
    "avx512": "AVX512_CORE_VNNI",
    "amx": "AVX512_CORE_AMX",
}


class WorkerError(Exception):
    """The engine is not installed, refused the model, or died; the text is its last line."""


@dataclass(frozen=True)
class Spec:
    """``kind`` is a module of this package, ``python`` the interpreter that has the engine, ``model`` what it loads.

    ``isa`` bounds the instruction set where the engine can be told so; llama.cpp is built for one.
    """

    kind: str
    python: str
    model: str
    isa: str = "auto"

    @property
    def label(self) -> str:
        return f"{self.kind} {Path(self.model).name}"

    @classmethod
    def ours(cls, precision: str, isa: str = "auto") -> Self:
        return cls("ours", sys.executable, precision if isa == "auto" else f"{precision}-{isa}", isa)

    def environment(self, num_threads: int) -> dict[str, str]:
        bound = {} if self.isa == "auto" else {"ONEDNN_MAX_CPU_ISA": ONEDNN_ISAS[self.isa]}
        return os.environ | {"OMP_NUM_THREADS": str(num_threads)} | bound


class Worker:
    """An engine in a process of its own. ``with`` ends it."""

    def __init__(self, spec: Spec, num_threads: int) -> None:
        model = spec.model if spec.kind == "ours" else str(Path(spec.model).resolve())
        python = os.path.abspath(shutil.which(spec.python) or spec.python)  # not resolved: a venv's is a link
        command = [python, "-m", f"workers.{spec.kind}", "--model", model, "--threads", str(num_threads)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self.began_s = time.perf_counter()
        self.answered_s = self.peak_mb = 0.0
        try:
            self._process = subprocess.Popen(
                command,
                cwd=FOLDER,
                env=spec.environment(num_threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            raise WorkerError(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def wait_ready(self) -> str:
        """The engine's version, once it is loaded."""
        return self._read()["version"]

    def run(self, prompts: list[list[int]], num_new: int) -> Timing:
        """Time one run; the worker must be ready."""
        try:
            print(json.dumps({"prompts": prompts, "num_new": num_new}), file=self._process.stdin, flush=True)
        except OSError:
            raise WorkerError(self._last_line()) from None
        answer = self._read()
        self.answered_s = time.perf_counter()
        self.peak_mb = answer.pop("peak_mb")
        return Timing(**answer)

    def _read(self) -> dict:
        text = self._process.stdout.readline()
        if not text:
            raise WorkerError(self._last_line())
        return json.loads(text)

    def _last_line(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"
