"""This project beside other engines: same weights, prompts and threads, each in a process of its own, in turn in one session.

    python benchmarks/compare_peers.py --ours int8 \\
        --peer llama_cpp VENV/bin/python model-q8_0.gguf \\
        --peer openvino_genai VENV/bin/python FOLDER [--isa avx2] [--cases one context ...] [--rounds 3] \\
        [--context 2048] [--streams 8 16 32]

Kinds of peer: llama_cpp, openvino_genai, onnxruntime_genai, ctranslate2, transformers. Each needs a Python that has it and
the same checkpoint in its own format; with --isa, llama.cpp must be built for that set. One that cannot start is passed over
with its reason. Greedy, the end of text ignored.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from common import (
    PRECISIONS,
    SETTLE_S,
    Prompts,
    layer_weights,
    line,
    parser,
    print_header,
    print_json,
    share_of_limit,
    step_bytes,
)
from limits import product_limit
from workers.process import ONEDNN_ISAS, Spec, Worker, WorkerError
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


GROUPS = ("one", "context", "prefill", "streams", "start")


def cases_of(groups: list[str], contexts: list[int], streams: list[int]) -> list[Case]:
    """Those of ``groups``: of "context" one for each length, of "streams" one for each number."""
    every = (
        Case("one", 1, 32, 128, (decode("one stream, 32 + 128", 96),)),
        *(Case("context", 1, n, 64, (decode(f"one stream at {n:,}", n + 32), prefill(n))) for n in contexts),
        Case("prefill", 1, 512, 1, (prefill(512),)),
        *(Case("streams", n, 32, 64, (decode(f"{n} streams", 64),)) for n in streams),
    )
    return [case for case in every if case.group in groups]


FIRST_TOKEN, PEAK_MEMORY = "start to first token, s", "peak memory at 4,016 tokens, MB"


@dataclass(frozen=True)
class Session:
    """``results`` by figure and engine, ``ratios`` by figure: ours to the best peer. Ours is the first engine.

    ``versions`` by engine, as its module tells it.
    """

    specs: list[Spec]
    precision: str
    num_threads: int
    rounds: int
    bandwidth: float
    products_per_s: float
    cases: list[Case]
    prompts: Prompts = field(default_factory=Prompts)
    results: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, figure: str, spec: Spec, value: float) -> None:
        self.results.setdefault(figure, {}).setdefault(spec.label, []).append(value)

    def report(self, figure: str, decode: tuple[int, int] | None = None) -> None:
        """Print one figure of all engines; ``decode``: streams and context of the steps that it counts."""
        ours = self.specs[0]
        results = self.results.get(figure, {})
        is_less_better = figure in (FIRST_TOKEN, PEAK_MEMORY)
        print(f"\n{figure}")
        for label, values in results.items():
            note = ""
            if label != ours.label and ours.label in results:
                ratio = statistics.median(results[ours.label]) / statistics.median(values)
                ratio = 1 / ratio if is_less_better else ratio
                self.ratios[figure] = min(ratio, self.ratios.get(figure, ratio))
                note = f"ours is {ratio:.2f}x"
            elif label == ours.label and decode is not None:
                num_streams, context = decode
                steps_per_s = statistics.median(values) / num_streams
                note = share_of_limit(
                    steps_per_s, self.bandwidth, self.precision, num_streams=num_streams, context=context
                )
            print(line(f"  {label}", values, note, unit="" if is_less_better else "tokens/s"), flush=True)

    def table(self) -> str:
        """All figures for docs/benchmarks.md; the last column is our share of what bounds the figure."""
        labels = [spec.label for spec in self.specs]
        lines = [f"| | {' | '.join(labels)} | ours / best | share of the limit |", "|---" * (len(labels) + 3) + "|"]
        for name, by_engine in self.results.items():
            cells = [cell(by_engine[label]) if label in by_engine else "-" for label in labels]
            ratio = f"**{self.ratios[name]:.2f}x**" if name in self.ratios else "-"
            ours = by_engine.get(labels[0])
            share = None if ours is None else self._share(name, statistics.median(ours))
            lines.append(f"| {name} | {' | '.join(cells)} | {ratio} | {'-' if share is None else f'{share:.0%}'} |")
        return "\n".join(lines)

    def _share(self, name: str, speed: float) -> float | None:
        """Of the bandwidth, by what a greedy step must read, or of the integer products."""
        for case in self.cases:
            for figure in case.figures:
                if figure.name == name and figure.context is None:
                    return speed * layer_weights() / self.products_per_s
                if figure.name == name:
                    _, least = step_bytes(self.precision, num_streams=case.num_streams, context=figure.context or 0)
                    return speed / case.num_streams * least / self.bandwidth
        return None


def cell(values: list[float]) -> str:
    """Median and spread; figures of more than a hundred without decimals."""
    digits = 0 if min(values) >= 100 else 2 if max(values) < 10 else 1
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} [{low}, {high}]"


def run_cases(session: Session) -> None:
    """All engines loaded side by side; in every round each runs the case once. The first round warms up."""
    with ExitStack() as stack:
        workers = dict(started(session, stack))
        time.sleep(SETTLE_S)
        for case in session.cases:
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
            for figure in case.figures:
                session.report(figure.name, None if figure.context is None else (case.num_streams, figure.context))


def started(session: Session, stack: ExitStack) -> Iterator[tuple[Spec, Worker]]:
    for spec in session.specs:
        try:
            worker = stack.enter_context(Worker(spec, session.num_threads))
            session.versions[spec.label] = worker.wait_ready()
            yield spec, worker
        except WorkerError as error:
            print(f"skipped {spec.label}: {error}")


def run_starts(session: Session) -> None:
    """A new process every time: its start to its first token; in the last round also its memory after a long prompt."""
    short, long = session.prompts.take(32)[0], session.prompts.take(LONG_PROMPT)[0]
    for round_no in range(session.rounds + 1):
        for spec in session.specs:
            try:
                with Worker(spec, session.num_threads) as worker:
                    worker.wait_ready()
                    worker.run([short], 1)
                    if round_no:  # the first round warms the page cache
                        session.add(FIRST_TOKEN, spec, worker.answered_s - worker.began_s)
                    if round_no == session.rounds:
                        worker.run([long], 16)
                        session.add(PEAK_MEMORY, spec, worker.peak_mb)
            except WorkerError as error:
                print(f"skipped {spec.label}: {error}")
    session.report(FIRST_TOKEN)
    session.report(PEAK_MEMORY)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--ours", choices=PRECISIONS, default="int8")
    flags.add_argument("--peer", nargs=3, action="append", default=[], metavar=("KIND", "PYTHON", "MODEL"))
    flags.add_argument("--isa", choices=("auto", *ONEDNN_ISAS), default="auto")
    flags.add_argument("--cases", nargs="+", choices=GROUPS, default=list(GROUPS))
    flags.add_argument("--context", type=int, nargs="+", default=[2_048], help="at most 2,048 for llama.cpp")
    flags.add_argument("--streams", type=int, nargs="+", default=[8, 16, 32])
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"ours in {args.ours}, {args.rounds} rounds, engines in turn")
    products_per_s = product_limit(args.isa, args.threads)
    print(f"kernels {args.isa}: {products_per_s / 1e12:.2f} T multiply-adds/s from cache")
    specs = [Spec.ours(args.ours, args.isa), *(Spec(*peer, args.isa) for peer in args.peer)]
    cases = cases_of(args.cases, args.context, args.streams)
    session = Session(specs, args.ours, args.threads, args.rounds, bandwidth, products_per_s, cases)
    if cases:
        run_cases(session)
    if "start" in args.cases:
        run_starts(session)
    print(f"\n{session.table()}\n")
    figures = {f"{name} | {label}": v for name, by_engine in session.results.items() for label, v in by_engine.items()}
    print_json(
        "compare_peers",
        args.threads,
        bandwidth,
        figures,
        precision=args.ours,
        isa=args.isa,
        products_per_s=products_per_s,
        ratios=session.ratios,
        engines=session.versions,
    )


if __name__ == "__main__":
    main()
