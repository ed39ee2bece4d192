"""One stream while another process keeps one of the cores busy, beside its own undisturbed speed, in turn.

    python benchmarks/bench_busy_core.py [--precision int8 int4] [--peer KIND PYTHON MODEL ...] [--rounds 3]

A team of threads that waits for its slowest by spinning falls here to a fraction; the goal is 40 %.
"""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from common import Prompts, line, parser, print_header, print_json
from workers.process import Spec, Worker, WorkerError

NUM_PROMPT, NUM_NEW = 32, 128
BURN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """A process that does nothing on the last of our cores but use it up."""
    core = max(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", BURN, str(core)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(worker: Worker, prompts: Prompts, rounds: int) -> tuple[list[float], list[float]]:
    """Decode speeds alone and disturbed; the first round warms up."""
    alone, disturbed = [], []
    for _ in range(rounds + 1):
        alone.append(worker.run(prompts.take(NUM_PROMPT), NUM_NEW).decode_speed)
        with busy_core():
            disturbed.append(worker.run(prompts.take(NUM_PROMPT), NUM_NEW).decode_speed)
    return alone[1:], disturbed[1:]


def main() -> None:
    flags = parser(__doc__, precisions=("int8", "int4"))
    flags.add_argument("--peer", nargs=3, action="append", default=[], metavar=("KIND", "PYTHON", "MODEL"))
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{NUM_PROMPT} + {NUM_NEW} tokens, {args.rounds} rounds")
    prompts = Prompts()
    figures: dict[str, list[float]] = {}
    for spec in [*map(Spec.ours, args.precision), *(Spec(*peer) for peer in args.peer)]:
        try:
            with Worker(spec, args.threads) as worker:
                worker.wait_ready()
                alone, disturbed = measure(worker, prompts, args.rounds)
        except WorkerError as error:
            print(f"skipped {spec.label}: {error}")
            continue
        figures |= {f"{spec.label}, alone": alone, f"{spec.label}, one core busy": disturbed}
        print(line(f"{spec.label}, alone", alone))
        share = statistics.median(disturbed) / statistics.median(alone)
        print(line(f"{spec.label}, one core busy", disturbed, f"{share:.0%} of alone"), flush=True)
    print_json("bench_busy_core", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
