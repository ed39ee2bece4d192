"""The server beside the bare engine: same prompts, same options, in turn.

    python benchmarks/bench_server.py [--precision int8] [--concurrency 1 8 32] [--max-tokens 64] [--rounds 3]

Tokens per second of all streams together, prompts included: the engine in this process, then the
server in one of its own, streamed and not, over connections that are kept. Streamed also: the time
to the first token of the first and of the last stream, the time between tokens, and the processor
time that the event loop's thread takes for a token. A round more, which counts for nothing else,
asks /health all the time. The client reads bare sockets: on a small machine its work is the
server's loss.
"""

import contextlib
import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from common import PRECISIONS, Prompts, line, parser, print_header, print_json
from kept_connections import Answer, KeptConnections
from serving import Server, server
from workers.ours import generate, greedy
from workers.protocol import Watch

from engine import LLMEngine

NUM_PROMPT, MAX_STREAMS = 32, 32
HEALTH_INTERVAL_S = 0.05
SETTLE_S = 10.0  # after a start the server checks its weights and makes a table, beside all else


@dataclass
class Figures:
    """Of one number of streams. Tokens per second: a value a round; the others in seconds."""

    engine: list[float] = field(default_factory=list)
    streamed: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    last_first_s: list[float] = field(default_factory=list)
    between_s: list[float] = field(default_factory=list)
    event_loop_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)


class Benchmark:
    """``engine`` and ``ours`` have the same options; ``connections`` belong to ``ours``."""

    def __init__(self, engine: LLMEngine, ours: Server, *, max_tokens: int) -> None:
        self._engine = engine
        self._ours = ours
        self._max_tokens = max_tokens
        self._prompts = Prompts()
        self._connections = KeptConnections((ours.host, ours.port))

    def measure(self, num: int, rounds: int) -> Figures:
        figures = Figures()
        for round_no in range(rounds + 1):
            if round_no == 1:
                figures = Figures()  # the first round warms up
            self._round(num, figures)
        with watched_health((self._ours.host, self._ours.port), figures.health_s):
            self._ask(num, stream=True)
        return figures

    def _round(self, num: int, figures: Figures) -> None:
        figures.engine.append(self._engine_speed(num))
        began_s = self._ours.event_loop_s()
        answers = self._ask(num, stream=True)
        figures.event_loop_s.append((self._ours.event_loop_s() - began_s) / (num * self._max_tokens))
        figures.streamed.append(self._speed(answers))
        first_s = [answer.came_s[0] - answer.asked_s for answer in answers]
        figures.first_s.append(min(first_s))
        figures.last_first_s.append(max(first_s))
        for answer in answers:
            figures.between_s += [b - a for a, b in zip(answer.came_s, answer.came_s[1:], strict=False)]
        figures.whole.append(self._speed(self._ask(num, stream=False)))

    def _engine_speed(self, num: int) -> float:
        watch = Watch(num)
        generate(self._engine.core, self._prompts.take(NUM_PROMPT, num), greedy(self._max_tokens), watch)
        return num * self._max_tokens / watch.timing().total_s

    def _ask(self, num: int, *, stream: bool) -> list[Answer]:
        answers = self._connections.ask(self._prompts.take(NUM_PROMPT, num), self._max_tokens, stream=stream)
        assert all(answer.num_tokens() == self._max_tokens for answer in answers)
        return answers

    def _speed(self, answers: list[Answer]) -> float:
        wall_s = max(answer.came_s[-1] for answer in answers) - min(answer.asked_s for answer in answers)
        return len(answers) * self._max_tokens / wall_s


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
    """Print; the ratios of the server to the engine, of medians."""
    alone = statistics.median(figures.engine)
    ratios = {
        "streamed": statistics.median(figures.streamed) / alone,
        "whole": statistics.median(figures.whole) / alone,
    }
    print(line(f"{name}, engine", figures.engine))
    print(line(f"{name}, streamed", figures.streamed, f"{ratios['streamed']:.3f}x the engine"))
    print(line(f"{name}, not streamed", figures.whole, f"{ratios['whole']:.3f}x the engine"))
    between = percentiles_ms(figures.between_s, 0.5, 0.95)
    print(
        f"  first token {statistics.median(figures.first_s) * 1e3:.0f} ms, of the last stream"
        f" {statistics.median(figures.last_first_s) * 1e3:.0f} ms;"
        f" between tokens p50 {between[0]:.1f}, p95 {between[1]:.1f} ms"
    )
    health = percentiles_ms(figures.health_s, 0.5, 0.99) if figures.health_s else [0.0, 0.0]
    print(
        f"  event loop {statistics.median(figures.event_loop_s) * 1e6:.0f} us of processor time a token;"
        f" /health p50 {health[0]:.1f}, p99 {health[1]:.1f} ms",
        flush=True,
    )
    return {f"{name}, {kind}": ratio for kind, ratio in ratios.items()}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--precision", choices=PRECISIONS, default="int8")
    flags.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    flags.add_argument("--max-tokens", type=int, default=64)
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{args.precision}, {args.max_tokens} new tokens, {args.rounds} rounds")
    engine = LLMEngine(quantization=args.precision, threads=args.threads, max_num_seqs=MAX_STREAMS)
    lists, ratios = {}, {}
    with server(args.threads, "--quantization", args.precision, "--max-num-seqs", str(MAX_STREAMS)) as ours:
        time.sleep(SETTLE_S)
        benchmark = Benchmark(engine, ours, max_tokens=args.max_tokens)
        for num in args.concurrency:
            figures, name = benchmark.measure(num, args.rounds), f"{num} streams"
            ratios |= report(name, figures)
            lists |= {f"{name}, engine": figures.engine, f"{name}, streamed": figures.streamed}
            lists |= {f"{name}, not streamed": figures.whole, f"{name}, event loop, s a token": figures.event_loop_s}
            lists |= {f"{name}, first token, s": figures.first_s, f"{name}, last first token, s": figures.last_first_s}
    print_json("bench_server", args.threads, bandwidth, lists, precision=args.precision, ratios=ratios)


if __name__ == "__main__":
    main()
