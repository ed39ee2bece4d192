"""Decode by what is asked of each token: sampled, penalised, biased, with log probabilities; each beside greedy, in turn.

    python benchmarks/bench_sampling.py [--precision int8] [--streams 1 16] [--rounds 5]

Speculation is off, so that a token is a step. The ratio is the median of the ratios to the greedy round just before. The goals:
0.92x of greedy with one stream and 0.90x with 16, and 0.80x with ``top_logprobs``.
"""

import statistics

from common import Prompts, line, parser, print_header, print_json
from workers.ours import generate, turn_off_speculation
from workers.protocol import Watch

from engine import LLMEngine, SamplingParams

NUM_NEW = 32
NUM_PROMPT = 128
GREEDY: dict[str, object] = {"temperature": 0.0}
KINDS: dict[str, dict[str, object]] = {
    "T 1, top_k 64, top_p .95": {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "seed": 1},
    "T 1, top_k 256": {"temperature": 1.0, "top_k": 256, "seed": 1},
    "T 1, top_p .95": {"temperature": 1.0, "top_p": 0.95, "seed": 1},
    "repetition_penalty 1.15": {"temperature": 0.0, "repetition_penalty": 1.15},
    "frequency_penalty .5": {"temperature": 0.0, "frequency_penalty": 0.5},
    "logit_bias": {"temperature": 0.0, "logit_bias": {1_000: 5.0, 2_000: -100.0}},
    "top_logprobs 5": {"temperature": 0.0, "logprobs": 5},
}


def speed(engine: LLMEngine, prompts: list[list[int]], settings: dict[str, object]) -> float:
    """Tokens per second of all streams together, after the first token of each."""
    watch = Watch(len(prompts))
    generate(engine.core, prompts, SamplingParams(max_tokens=NUM_NEW, ignore_eos=True, **settings), watch)
    return watch.timing().decode_speed


def main() -> None:
    flags = parser(__doc__, rounds=5, precisions=("int8",))
    flags.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{NUM_NEW} new tokens a stream behind {NUM_PROMPT}, {args.rounds} rounds")
    all_prompts = Prompts()
    figures: dict[str, list[float]] = {}
    for precision in args.precision:
        engine = LLMEngine(quantization=precision, threads=args.threads, max_model_len=4096)
        turn_off_speculation(engine)
        for num in args.streams:
            prompts = all_prompts.take(NUM_PROMPT, num)
            speed(engine, prompts, GREEDY)
            for kind, settings in KINDS.items():
                pairs = [(speed(engine, prompts, GREEDY), speed(engine, prompts, settings)) for _ in range(args.rounds)]
                ratio = statistics.median(asked / greedy for greedy, asked in pairs)
                name = f"{precision}, {num} streams, {kind}"
                figures[name] = [asked for _, asked in pairs]
                print(line(name, figures[name], f"{ratio:.2f}x of greedy"), flush=True)
    print_json("bench_sampling", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
