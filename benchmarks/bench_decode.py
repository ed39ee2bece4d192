"""Decode speed by streams and context: all streams begin together, then every step computes one token of each.

    python benchmarks/bench_decode.py [--precision int8 int4] [--streams 1 2 4 8 16 32] [--context 32 2048] [--rounds 3]

Speculation is off, so that a token is a step. Prompts are cached in the first round, which does not count.
"""

import statistics
import time

from common import SETTLE_S, Prompts, line, parser, print_header, print_json, share_of_limit
from workers.ours import generate, greedy, turn_off_speculation
from workers.protocol import Watch

from engine import LLMEngine

NUM_NEW = 64


def speeds(engine: LLMEngine, prompts: list[list[int]], rounds: int) -> list[float]:
    """Tokens per second of all streams together, after the first token of each."""
    values = []
    for _ in range(rounds + 1):
        watch = Watch(len(prompts))
        generate(engine.core, prompts, greedy(NUM_NEW), watch)
        values.append(watch.timing().decode_speed)
    return values[1:]


def main() -> None:
    flags = parser(__doc__, precisions=("int8", "int4"))
    flags.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    flags.add_argument("--context", type=int, nargs="+", default=[32, 2048])
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{NUM_NEW} new tokens a stream, {args.rounds} rounds")
    prompts = Prompts()
    figures: dict[str, list[float]] = {}
    for precision in args.precision:
        engine = LLMEngine(quantization=precision, threads=args.threads, max_model_len=4096)
        turn_off_speculation(engine)
        time.sleep(SETTLE_S)
        for context in args.context:
            for num in args.streams:
                name = f"{precision}, context {context:,}, {num} streams"
                values = figures[name] = speeds(engine, prompts.take(context, num), args.rounds)
                steps_per_s = statistics.median(values) / num
                mean_context = context + NUM_NEW // 2
                note = share_of_limit(steps_per_s, bandwidth, precision, num_streams=num, context=mean_context)
                print(line(name, values, note), flush=True)
    print_json("bench_decode", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
