"""The server beside the bare engine: same prompts, same options, in turn.

    python benchmarks/bench_server.py [--precision int8] [--concurrency 1 8 32] [--max-tokens 64] [--rounds 3]

Tokens per second of all streams together, prompts included: the engine in this process, then the
server in one of its own, streamed and not, over connections that are kept. Every round has new
prompts, which all three get, in a new order of turns; nobody caches prefixes, and the engine keeps
the server's pace of prefill. The prompts are sent at once. Of few streams there are more rounds, as
theirs are short. ``steps``: how many the server took for one of the engine's; more of them are
requests that came too late for a step.

Also: the time to the first token of the first and of the last stream, the time between tokens, and
the processor time that a token costs the event loop's thread and this client, whose work is the
server's loss on a small machine: so it reads bare sockets.
A round more, which counts for nothing else, asks /health all the time.
"""

import contextlib
import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from common import PRECISIONS, ROOT, SETTLE_S, Prompts, line, parser, print_header, print_json
from kept_connections import Answer, KeptConnections
from serving import Server, server
from workers.ours import generate, greedy
from workers.protocol import Watch

from engine.engine_core import EngineCore
from engine.engine_options import EngineOptions
from engine.loading import load_engine

NUM_PROMPT, MAX_STREAMS = 32, 32
SHORT_ROUNDS = 8  # so many rounds of one stream for a round of many
HEALTH_INTERVAL_S = 0.05
KINDS = ("engine", "streamed", "whole")


@dataclass
class Figures:
    """Of one number of streams. Tokens per second, steps and processor time by kind, a value a turn;
    the others in seconds.
    """

    speed: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    num_steps: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    event_loop_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS[1:]})
    client_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS[1:]})
    first_s: list[float] = field(default_factory=list)
    last_first_s: list[float] = field(default_factory=list)
    between_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)

    def ratio(self, kind: str) -> float:
        """The server's speed over the engine's: the median of the rounds, each with its own prompts."""
        return statistics.median(a / b for a, b in zip(self.speed[kind], self.speed["engine"], strict=True))

    def steps_ratio(self, kind: str) -> float:
        return sum(self.num_steps[kind]) / sum(self.num_steps["engine"])


class Benchmark:
    """``core`` and ``ours`` have the same options; ``connections`` belong to ``ours``."""

    def __init__(self, core: EngineCore, ours: Server, *, max_tokens: int) -> None:
        self._core = core
        self._ours = ours
        self._max_tokens = max_tokens
        self._prompts = Prompts()
        self._connections = KeptConnections((ours.host, ours.port))

    def measure(self, num: int, rounds: int) -> Figures:
        figures = Figures()
        for round_no in range(-1, rounds * max(1, SHORT_ROUNDS // num)):
            if round_no == 0:
                figures = Figures()  # the first round warms up
            prompts = self._prompts.take(NUM_PROMPT, num)
            for turn in range(len(KINDS)):
                self._turn(KINDS[(round_no + turn) % len(KINDS)], prompts, figures)
        with watched_health((self._ours.host, self._ours.port), figures.health_s):
            self._ask(self._prompts.take(NUM_PROMPT, num), stream=True)
        return figures

    def _turn(self, kind: str, prompts: list[list[int]], figures: Figures) -> None:
        num_tokens = len(prompts) * self._max_tokens
        if kind == "engine":
            before = self._num_steps()
            figures.speed[kind].append(num_tokens / self._compute(prompts))
            figures.num_steps[kind].append(self._num_steps() - before)
            return
        steps, event_loop_s, client_s = self._ours.num_steps(), self._ours.event_loop_s(), time.process_time()
        answers = self._ask(prompts, stream=kind == "streamed")
        figures.client_s[kind].append((time.process_time() - client_s) / num_tokens)
        figures.event_loop_s[kind].append((self._ours.event_loop_s() - event_loop_s) / num_tokens)
        figures.num_steps[kind].append(self._ours.num_steps() - steps)
        figures.speed[kind].append(num_tokens / _wall_s(answers))
        if kind == "streamed":
            _note_times(answers, figures)

    def _num_steps(self) -> int:
        return sum(self._core.step_sizes.sizes.num_steps)

    def _compute(self, prompts: list[list[int]]) -> float:
        """Seconds for all of them."""
        watch = Watch(len(prompts))
        generate(self._core, prompts, greedy(self._max_tokens), watch)
        return watch.timing().total_s

    def _ask(self, prompts: list[list[int]], *, stream: bool) -> list[Answer]:
        answers = self._connections.ask(prompts, self._max_tokens, stream=stream)
        assert all(answer.num_tokens() == self._max_tokens for answer in answers)
        return answers


def _wall_s(answers: list[Answer]) -> float:
    return max(answer.came_s[-1] for answer in answers) - min(answer.asked_s for answer in answers)


def _note_times(answers: list[Answer], figures: Figures) -> None:
    first_s = [answer.came_s[0] - answer.asked_s for answer in answers]
    figures.first_s.append(min(first_s))
    figures.last_first_s.append(max(first_s))
    for answer in answers:
        figures.between_s += [b - a for a, b in zip(answer.came_s, answer.came_s[1:], strict=False)]


@contextlib.contextmanager
def watched_health(address: tuple[str, int], times_s: list[float]) -> Iterator[None]:
    """Ask for /health all the time, from a thread, as a load balancer would."""
    done = threading.Event()

    def watch() -> None:
        connection = http.client.HTTPConnection(*address)
        while not done.wait(HEALTH_INTERVAL_S):
            began_s = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            times_s.append(time.perf_counter() - began_s)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def percentiles_ms(values_s: list[float], *shares: float) -> list[float]:
    ordered = sorted(values_s)
    return [ordered[int(len(ordered) * share)] * 1e3 for share in shares]


def report(name: str, figures: Figures) -> dict[str, float]:
    """Print; the ratios of the server to the engine."""
    print(line(f"{name}, engine", figures.speed["engine"]))
    for kind in KINDS[1:]:
        note = f"{figures.ratio(kind):.3f}x the engine, {figures.steps_ratio(kind):.3f}x the steps"
        print(line(f"{name}, {kind}", figures.speed[kind], note))
        event_loop, client = (statistics.median(each[kind]) * 1e6 for each in (figures.event_loop_s, figures.client_s))
        print(f"  processor time a token: event loop {event_loop:.0f} us, this client {client:.0f} us")
    between = percentiles_ms(figures.between_s, 0.5, 0.95)
    print(
        f"  first token {statistics.median(figures.first_s) * 1e3:.0f} ms, of the last stream"
        f" {statistics.median(figures.last_first_s) * 1e3:.0f} ms;"
        f" between tokens p50 {between[0]:.1f}, p95 {between[1]:.1f} ms"
    )
    health = percentiles_ms(figures.health_s, 0.5, 0.99) if figures.health_s else [0.0, 0.0]
    print(f"  /health p50 {health[0]:.1f}, p99 {health[1]:.1f} ms", flush=True)
    return {f"{name}, {kind}": figures.ratio(kind) for kind in KINDS[1:]}


def lists(name: str, figures: Figures) -> dict[str, list[float]]:
    """What there is a spread of, for programs."""
    made = {f"{name}, {kind}": values for kind, values in figures.speed.items()}
    made |= {f"{name}, {kind}, event loop, s a token": values for kind, values in figures.event_loop_s.items()}
    made |= {f"{name}, {kind}, client, s a token": values for kind, values in figures.client_s.items()}
    return made | {f"{name}, first token, s": figures.first_s, f"{name}, last first token, s": figures.last_first_s}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--precision", choices=PRECISIONS, default="int8")
    flags.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    flags.add_argument("--max-tokens", type=int, default=64)
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{args.precision}, {args.max_tokens} new tokens, {args.rounds} rounds")
    options = EngineOptions(
        quantization=args.precision, threads=args.threads, max_num_seqs=MAX_STREAMS, prefix_caching=False
    )
    core = load_engine(options, beside=ROOT).core
    figures, ratios = {}, {}
    server_flags = ["--quantization", args.precision, "--max-num-seqs", str(MAX_STREAMS), "--no-prefix-caching"]
    with server(args.threads, *server_flags) as ours:
        time.sleep(SETTLE_S)
        benchmark = Benchmark(core, ours, max_tokens=args.max_tokens)
        for num in args.concurrency:
            measured, name = benchmark.measure(num, args.rounds), f"{num} streams"
            ratios |= report(name, measured)
            figures |= lists(name, measured)
    print_json("bench_server", args.threads, bandwidth, figures, precision=args.precision, ratios=ratios)


if __name__ == "__main__":
    main()
