"""Time to first token of prompts that come at once, in the engine without HTTP; of two versions in turn, if two are named.

    python benchmarks/bench_first_token.py [PYTHON_BEFORE] [PYTHON_AFTER] [--prompts 8 32] [--tokens 512] [--rounds 3]

Each version is named by the interpreter of the environment that it is installed in; by default it is this one. They stay
loaded, each in a process of its own, and take turns. Prints mean, p50, p95 and the last prompt's time, and of two versions the
medians of the paired ratios. Each prompt is answered with --max-tokens, beside which the others are computed at the
server's pace; --unpaced is how LLMEngine computes them.
"""

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from common import PRECISIONS, line, parser, print_header, print_json

FOLDER = Path(__file__).resolve().parent
FIGURES = ("mean", "p50", "p95", "last")


class Version:
    """An installed version in a process of its own, which answers one run at a time."""

    def __init__(self, python: str, flags: Sequence[str]) -> None:
        command = [python, "-m", "workers.first_token", *flags]
        self.process = subprocess.Popen(command, cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline(), f"{python} cannot load the engine"

    def first_tokens_s(self, prompts: list[list[int]], max_tokens: int) -> list[float]:
        print(json.dumps({"prompts": prompts, "max_tokens": max_tokens}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def summary(times_s: list[float]) -> dict[str, float]:
    """One run's figures, by the names of ``FIGURES``."""
    ordered = sorted(times_s)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return dict(zip(FIGURES, (statistics.mean(ordered), statistics.median(ordered), p95, ordered[-1]), strict=True))


def measure(versions: list[Version], num_prompts: int, args: object) -> list[list[dict[str, float]]]:
    """The figures of each round, of each version."""
    rng = random.Random(num_prompts)
    rounds = []
    for _ in range(args.rounds + 1):
        prompts = [[2, *(rng.randrange(1_000, 200_000) for _ in range(args.tokens - 1))] for _ in range(num_prompts)]
        rounds.append([summary(each.first_tokens_s(prompts, args.max_tokens)) for each in versions])
    return rounds[1:]  # the first round warms up


def report(name: str, rounds: list[list[dict[str, float]]]) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Print; the figures of each version, and of two the ratios."""
    labels = ("before", "after") if len(rounds[0]) == 2 else ("",)
    figures, ratios = {}, {}
    for figure in FIGURES:
        columns = list(zip(*([each[figure] for each in one] for one in rounds), strict=True))
        for label, values in zip(labels, columns, strict=True):
            full_name = f"{name}, {figure} {label}".rstrip()
            figures[full_name] = list(values)
            print(line(full_name, values, unit="s"), flush=True)
        for before, after in pairwise(columns):
            ratios[f"{name}, {figure}"] = statistics.median(b / a for a, b in zip(before, after, strict=True))
            print(f"{'':34} {ratios[f'{name}, {figure}']:9.2f}x", flush=True)
    return figures, ratios


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("pythons", nargs="*", metavar="PYTHON", help="of the older version, then of the newer one")
    flags.add_argument("--precision", choices=PRECISIONS, default="int8")
    flags.add_argument("--prompts", type=int, nargs="+", default=[8, 32])
    flags.add_argument("--tokens", type=int, default=512)
    flags.add_argument("--max-tokens", type=int, default=64)
    flags.add_argument("--unpaced", action="store_true")
    args = flags.parse_args()
    if len(args.pythons) > 2:
        flags.error("two versions at most")
    pace = "unpaced" if args.unpaced else "at the server's pace"
    what = f"{args.precision}, prompts of {args.tokens} and {args.max_tokens} new tokens {pace}, {args.rounds} rounds"
    bandwidth = print_header(args.threads, what)
    worker_flags = ["--quantization", args.precision, "--threads", str(args.threads), *["--unpaced"] * args.unpaced]
    versions = [Version(python, worker_flags) for python in args.pythons or [sys.executable]]
    figures, ratios = {}, {}
    for num_prompts in args.prompts:
        more_figures, more_ratios = report(f"{num_prompts} prompts", measure(versions, num_prompts, args))
        figures |= more_figures
        ratios |= more_ratios
    for version in versions:
        version.close()
    print_json("bench_first_token", args.threads, bandwidth, figures, ratios=ratios)


if __name__ == "__main__":
    main()
