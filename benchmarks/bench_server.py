"""The server beside the bare engine: same prompts, same options, in turn.

    python benchmarks/bench_server.py [--precision int8] [--concurrency 1 8 32] [--max-tokens 64] [--rounds 3]

Tokens per second of all streams together, prompts included; over HTTP also the time to the first token, the time between
tokens, and how long /health takes meanwhile. The client reads bare sockets: on a small machine its work is the server's loss.
"""

import contextlib
import http.client
import json
import re
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from common import PRECISIONS, Prompts, line, parser, print_header, print_json
from serving import server
from workers.ours import generate, greedy
from workers.protocol import Watch

from engine import LLMEngine

NUM_PROMPT, MAX_STREAMS = 32, 32
HEALTH_INTERVAL_S = 0.05


@dataclass
class Stream:
    """A streaming request on a socket of its own, and when its pieces came (seconds, ``perf_counter``)."""

    connection: socket.socket
    asked_s: float
    body: bytes = b""
    came_s: list[float] = field(default_factory=list)

    @classmethod
    def open(cls, address: tuple[str, int], prompt: list[int], max_tokens: int) -> "Stream":
        options = {"temperature": 0, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
        body = json.dumps(options | {"model": "m", "prompt": prompt, "stream_options": {"include_usage": True}})
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
        asked_s = time.perf_counter()
        connection = socket.create_connection(address)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return cls(connection, asked_s)

    def receive(self) -> bool:
        """Take in what is there; whether more will come."""
        data = self.connection.recv(1 << 16)
        self.came_s += [time.perf_counter()] * data.count(b'"text":')
        self.body += data
        return bool(data) and b"data: [DONE]" not in self.body[-64:]

    def num_tokens(self) -> int:
        usage = re.search(rb'"completion_tokens": ?(\d+)', self.body)
        assert usage, self.body[:300]
        return int(usage[1])


@dataclass
class Served:
    """All that came over HTTP: one list a round or a token."""

    speeds: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    between_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)


def ask(address: tuple[str, int], prompts: list[list[int]], max_tokens: int, served: Served) -> None:
    began_s = time.perf_counter()
    streams = [Stream.open(address, prompt, max_tokens) for prompt in prompts]
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.connection, selectors.EVENT_READ, stream)
        while selector.get_map():
            for key, _ in selector.select():
                if not key.data.receive():
                    selector.unregister(key.fileobj)
                    key.data.connection.close()
    wall_s = time.perf_counter() - began_s
    assert all(stream.num_tokens() == max_tokens for stream in streams)
    served.speeds.append(len(prompts) * max_tokens / wall_s)
    for stream in streams:
        served.first_s.append(stream.came_s[0] - stream.asked_s)
        served.between_s += [b - a for a, b in zip(stream.came_s, stream.came_s[1:], strict=False)]


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


def engine_speed(engine: LLMEngine, prompts: list[list[int]], max_tokens: int) -> float:
    watch = Watch(len(prompts))
    generate(engine.core, prompts, greedy(max_tokens), watch)
    return len(prompts) * max_tokens / watch.timing().total_s


def measure(
    engine: LLMEngine, address: tuple[str, int], prompts: Prompts, num: int, max_tokens: int, rounds: int
) -> tuple[list[float], Served]:
    alone, served = [], Served()
    for round_no in range(rounds + 1):
        asked = prompts.take(NUM_PROMPT, num)
        alone.append(engine_speed(engine, asked, max_tokens))
        if round_no == 1:
            served = Served()  # the first round warms up
        with watched_health(address, served.health_s):
            ask(address, asked, max_tokens, served)
    return alone[1:], served


def percentiles_ms(values_s: list[float], *shares: float) -> list[float]:
    ordered = sorted(values_s)
    return [ordered[int(len(ordered) * share)] * 1e3 for share in shares]


def report(name: str, alone: list[float], served: Served) -> float:
    """Print; the ratio of the server to the engine."""
    ratio = statistics.median(served.speeds) / statistics.median(alone)
    print(line(f"{name}, engine", alone))
    print(line(f"{name}, server", served.speeds, f"{ratio:.2f}x the engine"))
    first = percentiles_ms(served.first_s, 0.5)[0]
    between, health = percentiles_ms(served.between_s, 0.5, 0.95), percentiles_ms(served.health_s, 0.5, 0.99)
    print(
        f"  first token {first:.0f} ms; between tokens p50 {between[0]:.1f}, p95 {between[1]:.1f} ms;"
        f" /health p50 {health[0]:.1f}, p99 {health[1]:.1f} ms",
        flush=True,
    )
    return ratio


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--precision", choices=PRECISIONS, default="int8")
    flags.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    flags.add_argument("--max-tokens", type=int, default=64)
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{args.precision}, {args.max_tokens} new tokens, {args.rounds} rounds")
    prompts = Prompts()
    engine = LLMEngine(quantization=args.precision, threads=args.threads, max_num_seqs=MAX_STREAMS)
    figures, ratios = {}, {}
    with server(args.threads, "--quantization", args.precision, "--max-num-seqs", str(MAX_STREAMS)) as ours:
        address = (ours.host, ours.port)
        for num in args.concurrency:
            alone, served = measure(engine, address, prompts, num, args.max_tokens, args.rounds)
            name = f"{num} streams"
            ratios[name] = report(name, alone, served)
            figures |= {f"{name}, engine": alone, f"{name}, server": served.speeds}
            figures |= {f"{name}, first token, s": served.first_s, f"{name}, /health, s": served.health_s}
    print_json("bench_server", args.threads, bandwidth, figures, precision=args.precision, ratios=ratios)


if __name__ == "__main__":
    main()
