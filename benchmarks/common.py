"""What the benchmarks share: prompts of plain prose, what a step must read, and how figures are printed."""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data import topics

import machine

import gemma3
from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.locate import locate_weights
from gemma3.config import Gemma3TextConfig

ROOT = Path(__file__).resolve().parent.parent
SETTLE_S = 10.0  # after a start this project checks its weights, and the server makes a table, beside all else
PRECISIONS = ("int8", "int4", "none")
# Python's own manual, which comes with Python: 500 kB of prose and tables.
TEXT = "".join(topics.topics[name] for name in sorted(topics.topics))[:500_000]


class Prompts:
    """Prompts of an exact length, no two alike, the same in every run."""

    def __init__(self) -> None:
        self.tokenizer = open_checkpoint(locate_weights(None, beside=ROOT).path).load_tokenizer()
        self._ids = self.tokenizer.encode(TEXT)
        self._next = 0

    def take(self, num_tokens: int, num: int = 1) -> list[list[int]]:
        """``num`` prompts, each a BOS and the next ``num_tokens - 1`` of the text, which begins anew at its end."""
        taken = []
        for _ in range(num):
            if self._next + num_tokens > len(self._ids):
                self._next = self._next % 97 + 1  # another phase than the last time round
            taken.append([self.tokenizer.bos_token_id, *self._ids[self._next : self._next + num_tokens - 1]])
            self._next += num_tokens
        return taken


def layer_weights() -> int:
    """Weights of the layers of the 270M: the multiply-adds of one prompt token, attention and the head apart."""
    config = Gemma3TextConfig()
    attention = 2 * config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    return config.num_hidden_layers * config.hidden_size * (attention + 3 * config.intermediate_size)


def step_bytes(precision: str, *, num_streams: int = 1, context: int = 0) -> tuple[float, float]:
    """What a decode step of the 270M reads: ``(all, least)`` bytes.

    ``all`` walks every weight at the precision's width (4-bit: groups of 64, the head too). ``least`` is what this
    project must read when it chooses greedily: of the head the high nibbles only. The KV cache (bfloat16) is in both.
    """
    config = Gemma3TextConfig()
    head = config.vocab_size * config.hidden_size
    attention = 2 * config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    layers = layer_weights()
    windows = (config.window(i) or context for i in range(config.num_hidden_layers))
    kv = num_streams * sum(4 * config.num_key_value_heads * config.head_dim * min(context, w) for w in windows)
    if precision == "none":
        return 2 * (layers + head) + kv, 2 * (layers + head) + kv
    if precision == "int8":
        return layers + head + kv, layers + head / 2 + kv
    # Ours keeps attention at 8 bits (gemma3/cpu/packed_layout.py).
    in_8_bits = config.num_hidden_layers * config.hidden_size * attention
    return 4.25 / 8 * (layers + head) + kv, in_8_bits + 4.125 / 8 * (layers - in_8_bits) + head / 2 + kv


def share_of_limit(
    steps_per_s: float, bandwidth: float, precision: str, *, num_streams: int = 1, context: int = 0
) -> str:
    """A decode speed beside what the memory allows."""
    whole, least = step_bytes(precision, num_streams=num_streams, context=context)
    return (
        f"{whole / 1e6:.0f} MB a step: {steps_per_s * whole / bandwidth:.0%} of the bandwidth"
        f" (greedy reads {least / 1e6:.0f}: {steps_per_s * least / bandwidth:.0%})"
    )


def line(name: str, values: Sequence[float], note: str = "", *, unit: str = "tokens/s") -> str:
    """Median and spread of one figure."""
    text = f"{name:34} {statistics.median(values):9.2f} {unit}   [{min(values):.2f}, {max(values):.2f}]"
    return f"{text}   {note}".rstrip()


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def print_header(num_threads: int, what: str) -> float:
    """The machine and its measured bandwidth, which is returned (bytes per second)."""
    bandwidth = machine.read_bandwidth(num_threads)
    print(f"{machine.describe()}\n{num_threads} threads read {bandwidth / 1e9:.1f} GB/s; {what}")
    return bandwidth


def print_json(
    benchmark: str, num_threads: int, bandwidth: float, figures: Mapping[str, Sequence[float]], **more: object
) -> None:
    """The line for programs: last, and alone on its line. ``plot.py`` reads such lines."""
    head = {
        "benchmark": benchmark,
        "command": shlex.join(["python", f"benchmarks/{benchmark}.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "version": f"{gemma3.__version__} {commit()}".strip(),
        "machine": machine.describe(),
        "threads": num_threads,
        "bandwidth": bandwidth,
    }
    print(json.dumps(head | {"figures": {name: spread(values) for name, values in figures.items()}} | more))


def commit() -> str:
    """The last one that changed what is measured; empty outside a repository."""
    command = ["git", "log", "-1", "--format=%h", "--", "engine", "gemma3", "openai_api"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def parser(doc: str | None, *, rounds: int = 3, precisions: Iterable[str] | None = None) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--threads", type=int, default=machine.num_cores())
    if precisions is not None:
        made.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(precisions))
    return made
