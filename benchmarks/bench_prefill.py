"""Prefill speed: a prompt's tokens over the time to its first token, alone in the engine.

python benchmarks/bench_prefill.py [--precision int8 int4] [--tokens 128 512 2048 8192] [--rounds 3]
"""

import statistics

from common import Prompts, line, parser, print_header, print_json
from workers.ours import generate, greedy
from workers.protocol import Watch

from engine import LLMEngine
from gemma3.config import Gemma3TextConfig


def operations_per_token(num_tokens: int) -> float:
    """Multiplications and additions of the layers for one token of a prompt, attention included, the head left out."""
    config = Gemma3TextConfig()
    heads = config.num_attention_heads
    weights = config.hidden_size * (
        2 * config.head_dim * (heads + config.num_key_value_heads) + 3 * config.intermediate_size
    )
    keys = (min(num_tokens, config.window(i) or num_tokens) / 2 for i in range(config.num_hidden_layers))
    return 2 * (config.num_hidden_layers * weights + sum(2 * heads * config.head_dim * num for num in keys))


def main() -> None:
    flags = parser(__doc__, precisions=("int8", "int4"))
    flags.add_argument("--tokens", type=int, nargs="+", default=[128, 512, 2048, 8192])
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{args.rounds} rounds")
    prompts = Prompts()
    figures: dict[str, list[float]] = {}
    for precision in args.precision:
        engine = LLMEngine(quantization=precision, threads=args.threads, prefix_caching=False)
        for num_tokens in args.tokens:
            values = []
            for _ in range(args.rounds + 1):
                watch = Watch(1)
                generate(engine.core, prompts.take(num_tokens), greedy(1), watch)
                values.append(num_tokens / watch.timing().first_s)
            name = f"{precision}, {num_tokens:,} tokens"
            figures[name] = values[1:]  # the first round warms up
            giga = statistics.median(figures[name]) * operations_per_token(num_tokens) / 1e9
            print(line(name, figures[name], f"{giga:.0f} billion operations/s"), flush=True)
    print_json("bench_prefill", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
