"""This project beside other engines: same weights, prompts and threads, each in a process of its own, in turn in one session.

    python benchmarks/compare_peers.py --ours int8 \\
        --peer llama_cpp VENV/bin/python model-q8_0.gguf \\
        --peer openvino_genai VENV/bin/python FOLDER [--cases one context prefill streams start] [--rounds 3]

Kinds of peer: llama_cpp, openvino_genai, onnxruntime_genai, ctranslate2, transformers. Each needs a Python that has it and the
same checkpoint in its own format. One that cannot start is passed over with its reason. Greedy, the end of text ignored.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from common import PRECISIONS, Prompts, line, parser, print_header, print_json, share_of_limit
from workers.process import Spec, Worker, WorkerError
from workers.protocol import Timing

LONG_PROMPT = 4_000


@dataclass(frozen=True)
class Figure:
    """``speed`` of a run is tokens per second. ``context`` says what a decode step reads; ``None``: no decode."""

    name: str
    speed: Callable[[Timing], float]
    context: int | None = None


@dataclass(frozen=True)
class Case:
    group: str
    num_streams: int
    num_prompt: int
    num_new: int
    figures: tuple[Figure, ...]


def decode(name: str, context: int) -> Figure:
    return Figure(name, lambda timing: timing.decode_speed, context)


def prefill(num_tokens: int) -> Figure:
    return Figure(f"prefill {num_tokens:,}", lambda timing: num_tokens / timing.first_s)


CASES = (
    Case("one", 1, 32, 128, (decode("one stream, 32 + 128", 96),)),
    Case("context", 1, 2_048, 64, (decode("one stream at 2,048", 2_080), prefill(2_048))),
    Case("prefill", 1, 512, 1, (prefill(512),)),
    *(Case("streams", n, 32, 64, (decode(f"{n} streams", 64),)) for n in (8, 16, 32)),
)
GROUPS = (*dict.fromkeys(case.group for case in CASES), "start")
START = ("start to first token, s", "peak memory, MB")


@dataclass(frozen=True)
class Session:
    """``results`` by figure and engine; ours is the first engine."""

    specs: list[Spec]
    num_threads: int
    rounds: int
    prompts: Prompts
    results: dict[str, dict[str, list[float]]]

    def add(self, figure: str, spec: Spec, value: float) -> None:
        self.results.setdefault(figure, {}).setdefault(spec.label, []).append(value)


def run_cases(session: Session, cases: list[Case]) -> None:
    """All engines loaded side by side; in every round each runs the case once. The first round warms up."""
    with ExitStack() as stack:
        workers = dict(started(session, stack))
        for case in cases:
            for round_no in range(session.rounds + 1):
                prompts = session.prompts.take(case.num_prompt, case.num_streams)
                for spec, worker in list(workers.items()):
                    try:
                        timing = worker.run(prompts, case.num_new)
                    except WorkerError as error:
                        print(f"dropped {spec.label}: {error}")
                        del workers[spec]
                        continue
                    for figure in case.figures if round_no else ():
                        session.add(figure.name, spec, figure.speed(timing))


def started(session: Session, stack: ExitStack) -> Iterator[tuple[Spec, Worker]]:
    for spec in session.specs:
        try:
            worker = stack.enter_context(Worker(spec, session.num_threads))
            worker.wait_ready()
            yield spec, worker
        except WorkerError as error:
            print(f"skipped {spec.label}: {error}")


def run_starts(session: Session) -> None:
    """A new process every time: its start to its first token, and the most memory it held up to a 4,000-token prompt."""
    short, long = session.prompts.take(32), session.prompts.take(LONG_PROMPT)
    for round_no in range(session.rounds + 1):
        for spec in session.specs:
            try:
                with Worker(spec, session.num_threads) as worker:
                    worker.wait_ready()
                    timing = worker.run(short, 1)
                    first_s = worker.answered_s - worker.began_s
                    worker.run(long, 16)
            except WorkerError as error:
                print(f"skipped {spec.label}: {error}")
                continue
            assert timing.total_s < first_s
            if round_no:  # the first round warms the page cache
                session.add(START[0], spec, first_s)
                session.add(START[1], spec, worker.peak_mb)


def report(session: Session, bandwidth: float) -> dict[str, float]:
    """Print every figure; the ratios of ours to the best peer by figure."""
    figures = {figure.name: (case, figure) for case in CASES for figure in case.figures}
    ratios = {}
    for name, by_engine in session.results.items():
        print(f"\n{name}")
        ours = session.specs[0]
        best = {}
        for label, values in by_engine.items():
            note = ""
            if label != ours.label:
                best[label] = ratio(name, by_engine.get(ours.label), values)
                note = f"ours is {best[label]:.2f}x" if best[label] else ""
            elif name in figures and figures[name][1].context is not None:
                case, figure = figures[name]
                steps_per_s = statistics.median(values) / case.num_streams
                note = share_of_limit(
                    steps_per_s, bandwidth, ours.model, num_streams=case.num_streams, context=figure.context
                )
            print(line(f"  {label}", values, note, unit="" if name in START else "tokens/s"))
        if any(best.values()):
            ratios[name] = min(value for value in best.values() if value)
    return ratios


def ratio(name: str, ours: list[float] | None, theirs: list[float]) -> float | None:
    """How many times better our median is: faster, or for a start and for memory, less."""
    if ours is None:
        return None
    value = statistics.median(ours) / statistics.median(theirs)
    return 1 / value if name in START else value


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--ours", choices=PRECISIONS, default="int8")
    flags.add_argument("--peer", nargs=3, action="append", default=[], metavar=("KIND", "PYTHON", "MODEL"))
    flags.add_argument("--cases", nargs="+", choices=GROUPS, default=list(GROUPS))
    args = flags.parse_args()
    session = Session(
        [Spec.ours(args.ours), *(Spec(*peer) for peer in args.peer)], args.threads, args.rounds, Prompts(), {}
    )
    bandwidth = print_header(args.threads, f"ours in {args.ours}, {args.rounds} rounds, engines in turn")
    if cases := [case for case in CASES if case.group in args.cases]:
        run_cases(session, cases)
    if "start" in args.cases:
        run_starts(session)
    ratios = report(session, bandwidth)
    print("\nours beside the best peer: " + ", ".join(f"{name} {value:.2f}x" for name, value in ratios.items()))
    figures = {f"{name} | {label}": v for name, by_engine in session.results.items() for label, v in by_engine.items()}
    print_json("compare_peers", args.threads, bandwidth, figures, precision=args.ours, ratios=ratios)


if __name__ == "__main__":
    main()
