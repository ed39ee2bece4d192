"""Two versions of this project beside each other: python benchmarks/compare_versions.py PYTHON_BEFORE PYTHON_AFTER.

Each is named by the interpreter of the environment that it is installed in, and runs in a process of its own. Both stay
loaded and take turns of a second or two, so that a noisy neighbour slows both alike. Prints the medians in tokens/s and
the median of the paired ratios.
"""

import argparse
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

JOBS = ("one", "16 streams", "16 sampled", "prefill 512", "prefill 2048")


def work(quantization: str) -> None:
    """Answer each job named on standard input with its tokens/s."""
    from engine import LLMEngine, SamplingParams

    engine = LLMEngine(quantization=quantization, prefix_caching=False)
    rng = random.Random(0)

    def prompts(count: int, num_tokens: int) -> list[list[int]]:
        return [[2, *(rng.randrange(1_000, 200_000) for _ in range(num_tokens - 1))] for _ in range(count)]

    one, many, short, long = prompts(1, 32), prompts(16, 32), prompts(1, 512), prompts(1, 2_048)
    drawn = {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "seed": 1}

    def seconds(texts: list[list[int]], max_tokens: int, settings: dict[str, float]) -> float:
        params = SamplingParams(**{"temperature": 0.0, "max_tokens": max_tokens, "ignore_eos": True} | settings)
        began_s = time.perf_counter()
        engine.generate(texts, params, show_progress=False)
        return time.perf_counter() - began_s

    def decode(texts: list[list[int]], max_tokens: int, settings: dict[str, float]) -> float:
        num_tokens = len(texts) * (max_tokens - 1)
        return num_tokens / (seconds(texts, max_tokens, settings) - seconds(texts, 1, settings))

    jobs = {
        "one": lambda: decode(one, 64, {}),
        "16 streams": lambda: decode(many, 24, {}),
        "16 sampled": lambda: decode(many, 16, drawn),
        "prefill 512": lambda: 512 / seconds(short, 1, {}),
        "prefill 2048": lambda: 2_048 / seconds(long, 1, {}),
    }
    print("ready", flush=True)
    for line in sys.stdin:
        print(jobs[line.strip()](), flush=True)


class Version:
    """An installed version in a process of its own, which answers one job at a time."""

    def __init__(self, python: str, quantization: str) -> None:
        self.process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), "--worker", "--quantization", quantization],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline().strip() == "ready"

    def ask(self, job: str) -> float:
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="of the older version, then of the newer one")
    parser.add_argument("--quantization", default="int8")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.quantization)
        return
    before, after = (Version(python, args.quantization) for python in args.pythons)
    for job in JOBS:
        before.ask(job), after.ask(job)
        pairs = [(before.ask(job), after.ask(job)) for _ in range(args.rounds)]
        ratio = statistics.median(new / old for old, new in pairs)
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        print(f"{job:14} before {medians[0]:8.1f}  after {medians[1]:8.1f}  {ratio:.3f}x")
    for version in (before, after):
        version.process.stdin.close()
        version.process.wait()


if __name__ == "__main__":
    main()
