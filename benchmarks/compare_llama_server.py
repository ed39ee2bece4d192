"""Our server beside llama-server: the same completions with the same JSON schema and the same prompts, in turn in one session.

    python benchmarks/compare_llama_server.py LLAMA_SERVER MODEL.gguf [--streams 1 16] [--rounds 3]

The bodies are the same for both: llama.cpp's own field ``json_schema``, greedy. Answers are counted, since each model of a
schema may write more or fewer tokens; free text of a fixed number of tokens shows what the schema costs each.
"""

import http.client
import json
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from common import line, parser, print_header, print_json
from serving import llama_server, server
from structured_tasks import SCHEMA, extraction_prompt

MAX_TOKENS, FREE_TOKENS = 200, 64
ANSWERS_OF_ONE_STREAM = 8


@dataclass(frozen=True)
class Address:
    label: str
    host: str
    port: int

    def ask(self, body: Mapping[str, object]) -> tuple[str, int]:
        """The text and its number of tokens."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, content
        return content["choices"][0]["text"], content["usage"]["completion_tokens"]


@dataclass(frozen=True)
class Round:
    answers_per_s: float
    tokens_per_s: float


def ask_all(address: Address, num_streams: int, fields: Mapping[str, object]) -> Round:
    """One request after the other on each of ``num_streams`` connections."""
    num = max(num_streams, ANSWERS_OF_ONE_STREAM)
    bodies = [{"prompt": extraction_prompt(i), "temperature": 0} | dict(fields) for i in range(num)]
    began_s = time.perf_counter()
    with ThreadPoolExecutor(num_streams) as pool:
        answers = list(pool.map(address.ask, bodies))
    seconds = time.perf_counter() - began_s
    if "json_schema" in fields:
        for text, _ in answers:
            assert json.loads(text).keys() == SCHEMA["properties"].keys(), text
    return Round(num / seconds, sum(num_tokens for _, num_tokens in answers) / seconds)


def compare(addresses: list[Address], num_streams: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The figures of all, and ours to the peer's by work."""
    figures: dict[str, list[float]] = {}
    works = {
        "schema": {"json_schema": SCHEMA, "max_tokens": MAX_TOKENS},
        "free": {"max_tokens": FREE_TOKENS, "ignore_eos": True},
    }
    ratios = {}
    for work, fields in works.items():
        done: dict[str, list[Round]] = {address.label: [] for address in addresses}
        for _ in range(rounds + 1):
            for address in addresses:
                done[address.label].append(ask_all(address, num_streams, fields))
        for label, each in done.items():
            name = f"{work}, {num_streams} streams, {label}"
            figures[name] = [one.answers_per_s for one in each[1:]]  # the first round warms up
            note = f"{statistics.median(one.tokens_per_s for one in each[1:]):.0f} tokens/s"
            print(line(name, figures[name], note, unit="answers/s"), flush=True)
        ours, peer = (figures[f"{work}, {num_streams} streams, {address.label}"] for address in addresses)
        ratios[f"{work}, {num_streams} streams"] = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    return figures, ratios


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("llama_server")
    flags.add_argument("model")
    flags.add_argument("--precision", choices=("int8", "int4"), default="int8")
    flags.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"ours in {args.precision}, {args.rounds} rounds, servers in turn")
    figures: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    slots = max(args.streams)
    with (
        server(args.threads, "--quantization", args.precision) as ours,
        llama_server(args.llama_server, args.model, args.threads, slots) as port,
    ):
        addresses = [Address("ours", ours.host, ours.port), Address("llama-server", "127.0.0.1", port)]
        for num_streams in args.streams:
            more_figures, more_ratios = compare(addresses, num_streams, args.rounds)
            figures |= more_figures
            ratios |= more_ratios
    print("ours beside llama-server: " + ", ".join(f"{name} {value:.1f}x" for name, value in ratios.items()))
    print_json("compare_llama_server", args.threads, bandwidth, figures, precision=args.precision, ratios=ratios)


if __name__ == "__main__":
    main()
