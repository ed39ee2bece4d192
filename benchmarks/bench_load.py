"""Latency under load: requests come at random times, however many are still being answered.

    python benchmarks/bench_load.py [--rates 0.5 1 2 3] [--seconds 15] [--prompt-tokens 128] [--max-tokens 64]

For each rate, in requests a second, so many requests as come in ``--seconds``, at times drawn evenly
from a fixed seed, streamed, each with a prompt of its own. Told are the time to the first token and
the time between two tokens, all requests together. Where more is asked than can be computed, a queue
grows as long as it lasts: the latencies there say how long it was, not what the server needs.
"""

import random
from dataclasses import asdict, dataclass
from itertools import pairwise

from common import PRECISIONS, SETTLE_S, Prompts, parser, print_header, print_json
from kept_connections import Answer, KeptConnections
from serving import server

MAX_STREAMS = 32


@dataclass(frozen=True)
class Point:
    """Of one rate: ``rate`` in requests a second, ``tokens_per_s`` generated, latencies in milliseconds."""

    rate: float
    num_requests: int
    tokens_per_s: float
    first_token_p50_ms: float
    first_token_p95_ms: float
    between_p50_ms: float
    between_p95_ms: float


def point(rate: float, answers: list[Answer]) -> Point:
    first_s = [answer.came_s[0] - answer.asked_s for answer in answers]
    between_s = [b - a for answer in answers for a, b in pairwise(answer.came_s)]
    wall_s = max(answer.came_s[-1] for answer in answers) - answers[0].asked_s
    tokens_per_s = sum(answer.num_tokens() for answer in answers) / wall_s
    latencies_ms = [1e3 * percentile(values, share) for values in (first_s, between_s) for share in (0.5, 0.95)]
    return Point(rate, len(answers), tokens_per_s, *latencies_ms)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--precision", choices=PRECISIONS, default="int8")
    flags.add_argument("--rates", type=float, nargs="+", default=[0.5, 1, 2, 3])
    flags.add_argument("--seconds", type=float, default=15)
    flags.add_argument("--prompt-tokens", type=int, default=128)
    flags.add_argument("--max-tokens", type=int, default=64)
    args = flags.parse_args()
    what = f"{args.precision}, {args.prompt_tokens} + {args.max_tokens} tokens a request, {args.seconds:g} s a rate"
    bandwidth = print_header(args.threads, what)
    prompts, points = Prompts(), []
    with server(
        args.threads, "--quantization", args.precision, "--max-num-seqs", str(MAX_STREAMS), "--no-prefix-caching"
    ) as ours:
        connections = KeptConnections((ours.host, ours.port))
        warm_up = connections.ask(prompts.take(args.prompt_tokens), args.max_tokens, stream=True, at_s=[SETTLE_S])
        assert warm_up[0].came_s
        for rate in args.rates:
            rng = random.Random(0)
            num = max(1, round(rate * args.seconds))
            at_s = sorted(rng.uniform(0, args.seconds) for _ in range(num))
            asked = prompts.take(args.prompt_tokens, num)
            points.append(point(rate, connections.ask(asked, args.max_tokens, stream=True, at_s=at_s)))
            print(points[-1], flush=True)
    more = {"prompt_tokens": args.prompt_tokens, "max_tokens": args.max_tokens, "points": [*map(asdict, points)]}
    print_json("bench_load", args.threads, bandwidth, {}, precision=args.precision, **more)


if __name__ == "__main__":
    main()
