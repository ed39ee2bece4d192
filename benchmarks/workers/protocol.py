"""How a benchmark talks to an engine in a process of its own. The standard library only: it runs in the engine's Python.

A line of JSON in for each run (``prompts``, ``num_new``), a line out (a ``Timing``, and the peak memory so far). The first
line out says that the engine is loaded, and its version. The engine chooses greedily, passes over the end of text, and writes
``num_new`` tokens for every prompt.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """``first_s``: until every stream had its first token. ``num_decoded``: the tokens of all streams that came after that."""

    first_s: float
    total_s: float
    num_decoded: int
    token_ids: list[list[int]]

    @property
    def decode_speed(self) -> float:
        """Tokens per second of all streams together, after the first token of each."""
        return self.num_decoded / (self.total_s - self.first_s)


class Watch:
    """Takes note of tokens as they come; one for each run, made when the run begins."""

    def __init__(self, num_streams: int) -> None:
        self.token_ids: list[list[int]] = [[] for _ in range(num_streams)]
        self._began_s = self._last_s = time.perf_counter()
        self._first_s: float | None = None
        self._num_first = 0

    def got(self, tokens: dict[int, Sequence[int]]) -> None:
        """What one step brought, by stream."""
        for stream, ids in tokens.items():
            self.token_ids[stream] += ids
        self._last_s = time.perf_counter()
        if self._first_s is None and all(self.token_ids):
            self._first_s, self._num_first = self._last_s, self._num_tokens

    @property
    def _num_tokens(self) -> int:
        return sum(map(len, self.token_ids))

    def timing(self) -> Timing:
        assert self._first_s is not None, "a stream has no token"
        return Timing(
            self._first_s - self._began_s,
            self._last_s - self._began_s,
            self._num_tokens - self._num_first,
            self.token_ids,
        )


Generate = Callable[[list[list[int]], int, Watch], None]


def serve(load: Callable[[str, int], Generate]) -> None:
    """Run an engine until standard input ends. ``load(model, num_threads)`` makes it ready to generate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines print to standard output as they please
    generate = load(args.model, args.threads)
    print(json.dumps({"version": version()}), file=out, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        watch = Watch(len(case["prompts"]))
        generate(case["prompts"], case["num_new"], watch)
        timing = watch.timing()
        assert all(len(ids) == case["num_new"] for ids in timing.token_ids), "not as many tokens as asked for"
        print(json.dumps(asdict(timing) | {"peak_mb": peak_mb()}), file=out, flush=True)


def version() -> str:
    """Of the engine: a worker is named as the module that it imports, but for ours."""
    name = Path(sys.argv[0]).stem
    return str(getattr(sys.modules.get({"ours": "gemma3"}.get(name, name)), "__version__", "unknown"))


def peak_mb() -> float:
    """The most memory that this process ever had resident, in 10^6 bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6
