"""The server beside the bare engine: same prompts, same process options, alternately.

    python benchmarks/bench_server.py [--rounds 3] [--concurrency 16] [--max-tokens 128] [--dtype bfloat16]

Prints tokens per second of the engine alone (one sequence, then ``--concurrency`` of them), of the server over HTTP at the
same concurrency (streaming), the ratios, and how long /health takes meanwhile (p50, p99); last one JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import machine

from engine import LLMEngine, SamplingParams

ROOT = Path(__file__).resolve().parent.parent
WORDS = "time year people way day man thing woman life child world school state family student group country problem".split()


def prompts(num: int, salt: int) -> list[str]:
    """About 32 tokens each, no two with the same beginning."""
    return [
        " ".join(WORDS[(salt + i * 7 + j * (i + 1)) % len(WORDS)] for j in range(30)) + f" {salt} {i}"
        for i in range(num)
    ]


def engine_speed(engine: LLMEngine, num: int, salt: int, max_tokens: int) -> float:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    began = time.perf_counter()
    answers = engine.generate(prompts(num, salt), params, show_progress=False)
    return sum(len(answer.token_ids[0]) for answer in answers) / (time.perf_counter() - began)


@contextlib.contextmanager
def server(args: argparse.Namespace) -> Iterator[str]:
    command = [sys.executable, "main.py", "serve", "--port", "0", "--log-level", "error", "--dtype", args.dtype]
    command += ["--max-num-seqs", str(args.concurrency), "--served-model-name", "m"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip().rpartition(" at ")[2]
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def stream(client: httpx.AsyncClient, prompt: str, max_tokens: int) -> int:
    body = {
        "model": "m",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    body["stream_options"] = {"include_usage": True}
    num_tokens = 0
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if '"usage":{' in line:
                num_tokens = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    return num_tokens


async def watch_health(client: httpx.AsyncClient, times_s: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await client.get("/health")
        times_s.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)


async def server_speed(url: str, num: int, salt: int, max_tokens: int, health_s: list[float]) -> float:
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        watcher = asyncio.create_task(watch_health(client, health_s))
        began = time.perf_counter()
        counts = await asyncio.gather(*(stream(client, prompt, max_tokens) for prompt in prompts(num, salt)))
        speed = sum(counts) / (time.perf_counter() - began)
        watcher.cancel()
    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    engine = LLMEngine(dtype=args.dtype, max_num_seqs=args.concurrency)
    figures: dict[str, list[float]] = {
        "engine 1": [],
        f"engine {args.concurrency}": [],
        f"server {args.concurrency}": [],
    }
    health_s: list[float] = []
    with server(args) as url:
        for salt in range(args.rounds + 1):
            speeds = (
                engine_speed(engine, 1, salt, args.max_tokens),
                engine_speed(engine, args.concurrency, salt, args.max_tokens),
                asyncio.run(server_speed(url, args.concurrency, salt, args.max_tokens, health_s)),
            )
            if salt > 0:  # the first round warms up
                for values, speed in zip(figures.values(), speeds, strict=True):
                    values.append(speed)
    report(figures, sorted(health_s))


def report(figures: dict[str, list[float]], health_s: list[float]) -> None:
    print(machine.describe())
    medians = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        print(f"{name:12} median {medians[name]:8.1f} tokens/s   [{min(values):.1f}, {max(values):.1f}]")
    one, many, served = medians.values()
    p50, p99 = (health_s[int(len(health_s) * share)] * 1e3 for share in (0.5, 0.99))
    print(
        f"batch over one {many / one:.2f}x, server over engine {served / many:.2f}x, /health p50 {p50:.1f} ms p99 {p99:.1f} ms"
    )
    print(json.dumps({"machine": machine.describe(), **medians, "health_p50_ms": p50, "health_p99_ms": p99}))


if __name__ == "__main__":
    main()
