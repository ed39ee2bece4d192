"""What requests do to each other, over HTTP: python benchmarks/bench_interference.py [--only NAME ...]

prompt   8 streams alone and beside one long prompt: time between tokens; the prompt's own time
         alone and beside them.
queue    the wait of one client's request alone, and behind 1,000 that another client has queued
         (two API keys).
flex     one stream at a time alone, and beside 64 requests of the tier that gives way: time to the
         first token and between tokens.
live     GET /live on a kept-alive connection.
bodies   memory of the server for 150 bodies of 4 MiB of which the last byte never comes.

Each starts a server of its own. The longest is ``prompt``: --prompt-tokens makes it shorter.
"""

import random
import resource
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import machine
from common import line, parser, print_json
from serving import Server, server

MIB = 1024 * 1024
NUM_STREAMS, ALONE_S = 8, 12.0
NUM_QUEUED = 1_000
NUM_GIVING_WAY, NUM_TALKS = 64, 20
KEYS = ("first-client-0123456789abcdef", "second-client-0123456789abcdef")
NUM_BODIES, SENDING_S = 150, 15.0
Figures = dict[str, list[float]]


class Prompts:
    """Ids that no other prompt begins with."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def take(self, num_tokens: int) -> list[int]:
        return [2, *(self.rng.randrange(1_000, 200_000) for _ in range(num_tokens - 1))]


@dataclass
class Streams:
    """Some streams, read by a thread of its own until they are closed; when each event came, by
    stream.
    """

    connections: Sequence[socket.socket]
    came_s: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.came_s = [[] for _ in self.connections]
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, connection in enumerate(self.connections):
                selector.register(connection, selectors.EVENT_READ, index)
            while not self.done.is_set():
                for key, _ in selector.select(timeout=0.2):
                    data = key.fileobj.recv(1 << 16)
                    self.came_s[key.data] += [time.perf_counter()] * min(1, data.count(b'"text":'))
                    if not data:
                        selector.unregister(key.fileobj)

    def close(self) -> None:
        self.done.set()
        self.thread.join()
        for connection in self.connections:
            connection.close()

    def gaps_ms(self, from_s: float, to_s: float) -> list[float]:
        """Between two events of one stream, of which the second came in [from_s, to_s)."""
        pairs = (pair for times in self.came_s for pair in pairwise(times))
        return [(b - a) * 1e3 for a, b in pairs if from_s <= b < to_s]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def beside_a_prompt(num_threads: int, num_tokens: int) -> Figures:
    """Streams alone and beside a prompt, the prompt alone and beside the streams."""
    prompts = Prompts()
    with server(num_threads) as ours:
        ours.seconds({"prompt": prompts.take(64), "max_tokens": 8})
        prompt_alone_s = ours.seconds({"prompt": prompts.take(num_tokens), "max_tokens": 1})
        endless = {"max_tokens": 8_000, "temperature": 1.0, "stream": True}
        streams = Streams([ours.send(endless | {"prompt": prompts.take(16), "seed": i}) for i in range(NUM_STREAMS)])
        try:
            time.sleep(2)
            began_s = time.perf_counter()
            time.sleep(ALONE_S)
            sent_s = time.perf_counter()
            prompt_beside_s = ours.seconds({"prompt": prompts.take(num_tokens), "max_tokens": 1})
        finally:
            streams.close()
    alone, beside = streams.gaps_ms(began_s, sent_s), streams.gaps_ms(sent_s, sent_s + prompt_beside_s)
    report_prompt(alone, beside, [prompt_alone_s, prompt_beside_s])
    return {
        "between tokens alone, ms": alone,
        "between tokens beside, ms": beside,
        "prompt alone, s": [prompt_alone_s],
        "prompt beside, s": [prompt_beside_s],
    }


def report_prompt(alone: list[float], beside: list[float], prompt_s: list[float]) -> None:
    """As ratios: to the median alone, and to the prompt's own time alone."""
    base = statistics.median(alone)
    for name, gaps in (("alone", alone), ("beside the prompt", beside)):
        figures = [percentile(gaps, 0.5), percentile(gaps, 0.95), max(gaps)]
        p50, p95, most = (f"{ms:.0f} ms ({ms / base:.1f}x)" for ms in figures)
        print(f"{NUM_STREAMS} streams {name}: between tokens p50 {p50}, p95 {p95}, max {most}")
    print(f"the prompt alone {prompt_s[0]:.1f} s, beside them {prompt_s[1]:.1f} s ({prompt_s[1] / prompt_s[0]:.2f}x)")


def behind_a_queue(num_threads: int) -> Figures:
    """One client's request alone, and while another's wait."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if 0 < hard < 8_192 else 8_192, hard))
    prompts, (first, second) = Prompts(), KEYS
    with server(num_threads, "--api-key", first, "--api-key", second) as ours:
        alone_s = [ours.seconds({"prompt": prompts.take(16), "max_tokens": 1}, second) for _ in range(5)]
        # Of many lengths, so that a seat becomes free now and then and not all at once.
        lengths = [16 + i % 48 for i in range(NUM_QUEUED)]
        queued = [ours.send({"prompt": prompts.take(16), "max_tokens": length}, first) for length in lengths]
        time.sleep(2)
        behind_s = ours.seconds({"prompt": prompts.take(16), "max_tokens": 1}, second)
        for connection in queued:
            connection.close()
    print(line("a request alone", alone_s, unit="s"))
    print(line(f"behind {NUM_QUEUED} of another client", [behind_s], unit="s"))
    return {"alone, s": alone_s, "behind the queue, s": [behind_s]}


def times_of_tokens(ours: Server, body: dict[str, object]) -> list[float]:
    with ours.send(body) as connection, connection.makefile("rb") as lines:
        came_s = []
        for each in lines:
            if each.startswith(b"data: [DONE]"):
                break
            if b'"text":' in each:
                came_s.append(time.perf_counter())
    return came_s


def seconds_of_all(ours: Server, prompts: Prompts, tier: str) -> float:
    """Of as many requests at once, of which each reads 64 tokens and writes 32."""
    body = {"max_tokens": 32, "temperature": 0, "service_tier": tier}
    with ThreadPoolExecutor(NUM_GIVING_WAY) as pool:
        bodies = [body | {"prompt": prompts.take(64)} for _ in range(NUM_GIVING_WAY)]
        began_s = time.perf_counter()
        list(pool.map(ours.seconds, bodies))
        return time.perf_counter() - began_s


def beside_those_that_give_way(num_threads: int) -> Figures:
    """Streams of 32 tokens, one after the other, each with a short pause before it as between people."""
    prompts, figures = Prompts(), Figures()
    with server(num_threads) as ours:
        ours.seconds({"prompt": prompts.take(64), "max_tokens": 8})
        for name, num_beside in (("alone", 0), ("beside", NUM_GIVING_WAY)):
            waiting = [
                ours.send({"prompt": prompts.take(128), "max_tokens": 2_000, "service_tier": "flex", "seed": i})
                for i in range(num_beside)
            ]
            time.sleep(3 if waiting else 0)
            first_ms, between_ms = [], []
            for number in range(NUM_TALKS):
                time.sleep(0.05 + 0.01 * number)  # at every moment of a step
                sent_s = time.perf_counter()
                body = {"prompt": prompts.take(32), "max_tokens": 32, "temperature": 0, "stream": True}
                came_s = times_of_tokens(ours, body)
                first_ms.append((came_s[0] - sent_s) * 1e3)
                between_ms += [(b - a) * 1e3 for a, b in pairwise(came_s)]
            for connection in waiting:
                connection.close()
            figures |= {f"first token {name}, ms": first_ms, f"between tokens {name}, ms": between_ms}
        for _ in range(3):
            for tier in ("default", "flex"):
                figures.setdefault(f"{NUM_GIVING_WAY} requests, {tier}, s", []).append(
                    seconds_of_all(ours, prompts, tier)
                )
    for what, share in (("first token", 0.95), ("between tokens", 0.5)):
        alone, beside = (percentile(figures[f"{what} {name}, ms"], share) for name in ("alone", "beside"))
        figures_of_both = f"alone {alone:.1f} ms, beside {NUM_GIVING_WAY} that give way {beside:.1f} ms"
        print(f"{what}, p{share * 100:.0f}: {figures_of_both} ({beside / alone:.2f}x)")
    for tier in ("default", "flex"):
        print(line(f"{NUM_GIVING_WAY} requests, {tier}", figures[f"{NUM_GIVING_WAY} requests, {tier}, s"], unit="s"))
    return figures


def kept_alive(num_threads: int) -> Figures:
    with server(num_threads) as ours:
        connection, times_ms = ours.connect(), []
        for _ in range(300):
            began_s = time.perf_counter()
            connection.request("GET", "/live")
            connection.getresponse().read()
            times_ms.append((time.perf_counter() - began_s) * 1e3)
    print(line("GET /live, kept alive", times_ms[10:], f"p99 {percentile(times_ms[10:], 0.99):.2f}", unit="ms"))
    return {"GET /live, ms": times_ms[10:]}


def unfinished_bodies(num_threads: int) -> Figures:
    """Sent as fast as the server takes them; those that it refuses, or does not read, count as not
    taken.
    """
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % (4 * MIB) + b" " * (4 * MIB - 1)
    with server(num_threads) as ours:
        before_mib = ours.anonymous_mib()
        bodies = [Body(ours, memoryview(request)) for _ in range(NUM_BODIES)]
        most_mib, deadline_s = before_mib, time.perf_counter() + SENDING_S
        while any(body.is_going_on for body in bodies) and time.perf_counter() < deadline_s:
            for body in bodies:
                body.send_some()
            most_mib = max(most_mib, ours.anonymous_mib())
        time.sleep(1)
        grown_mib = max(most_mib, ours.anonymous_mib()) - before_mib
        num_taken = sum(not body.rest for body in bodies)
        for body in bodies:
            body.connection.close()
    print(line(f"{NUM_BODIES} unfinished bodies", [grown_mib], f"{num_taken} were taken whole", unit="MiB"))
    return {"unfinished bodies, MiB": [grown_mib]}


class Body:
    """One request on its way. Mutable: ``rest`` is not sent yet."""

    def __init__(self, ours: Server, request: memoryview) -> None:
        self.connection = socket.create_connection((ours.host, ours.port))
        self.connection.settimeout(0)
        self.rest = request
        self.is_refused = False

    @property
    def is_going_on(self) -> bool:
        return bool(self.rest) and not self.is_refused

    def send_some(self) -> None:
        if not self.is_going_on:
            return
        try:
            self.rest = self.rest[self.connection.send(self.rest[: 256 * 1024]) :]
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            self.is_refused = True


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--only", nargs="+", choices=("prompt", "queue", "flex", "live", "bodies"))
    flags.add_argument("--prompt-tokens", type=int, default=30_000)
    args = flags.parse_args()
    print(machine.describe())
    figures: Figures = {}
    for name, measure in {
        "live": kept_alive,
        "bodies": unfinished_bodies,
        "queue": behind_a_queue,
        "flex": beside_those_that_give_way,
        "prompt": lambda num_threads: beside_a_prompt(num_threads, args.prompt_tokens),
    }.items():
        if args.only is None or name in args.only:
            figures |= measure(args.threads)
    bandwidth = machine.read_bandwidth(args.threads)
    print_json("bench_interference", args.threads, bandwidth, figures, prompt_tokens=args.prompt_tokens)


if __name__ == "__main__":
    main()
