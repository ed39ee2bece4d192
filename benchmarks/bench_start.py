"""What a start costs: ``python main.py`` and the server from a warm cache, the first start's packing, the server's memory.

python benchmarks/bench_start.py [--only start packing memory] [--quantization int8] [--rounds 5] [--streams 64]

Packing is told by stage, in seconds of processor time (``workers/packing.py``). The server's memory is taken when it is ready,
when its weights are checked, after many streams, and when it was idle for a while.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence

from common import PRECISIONS, ROOT, Prompts, line
from machine import num_cores
from serving import Server, server

from gemma3.cpu.packed_layout import SCHEMES

OPEN = (
    "from gemma3.checkpoints import embedded_weights as e; "
    "from gemma3.checkpoints.checkpoint import open_checkpoint as o; c = o(e.embedded_gguf()[0]); "
)
PARTS = {
    "python itself": "",
    "import torch": "import torch",
    "import the server's packages": "import openai_api.run, fastapi, uvicorn",
    "open the checkpoint (no torch)": OPEN,
    "... and build the tokenizer": OPEN + "c.load_tokenizer()",
    "... and load the weights (torch)": OPEN + "from gemma3.torch_model.load import load_model; load_model(c)",
}
# Greedily: the penalty that main.py adds by itself costs a whole head, which is no part of a start.
MAIN = [sys.executable, "main.py", "Once upon a time", "--max-new-tokens", "1", "--temperature", "0"]
SERVE = [sys.executable, "main.py", "serve", "--port", "0", "--log-level", "error"]
WHAT = ("start", "packing", "memory")
POLL_S = 0.005
NUM_PROMPT, NUM_NEW = 900, 100
CHECKED_S = 15  # after the start, weights are checked and the grammars' table is made
IDLE_S = 70


def seconds(command: list[str]) -> float:
    began_s = time.perf_counter()
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - began_s


def first_token(command: list[str]) -> tuple[float, float, float]:
    """Start to first token by the program's own clock, the whole process, both in seconds; its peak memory in MB."""
    began_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    assert status == 0, log
    return float(re.search(r"([\d.]+) s after start", log)[1]), wall_s, usage.ru_maxrss * 1024 / 1e6


def healthy_after(command: list[str]) -> float:
    """Seconds from the server's start to its first 200 from /health."""
    began_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip().rpartition("//")[2]
        while not is_healthy(address):
            time.sleep(POLL_S)
        return time.perf_counter() - began_s
    finally:
        process.terminate()
        process.communicate(timeout=60)


def is_healthy(address: str) -> bool:
    with contextlib.closing(http.client.HTTPConnection(address)) as connection:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200


def measure_start(options: Sequence[str], num_rounds: int) -> None:
    for name, code in PARTS.items():
        print(line(name, [seconds([sys.executable, "-c", code]) for _ in range(num_rounds)], unit="s"), flush=True)
    starts = [first_token([*MAIN, *options]) for _ in range(num_rounds)]
    for name, values, unit in zip(
        ("main.py, first token", "main.py, whole process, 1 token", "main.py, peak memory"),
        zip(*starts, strict=True),
        ("s", "s", "MB"),
        strict=True,
    ):
        print(line(name, values, unit=unit), flush=True)
    print(line("server, /health 200", [healthy_after([*SERVE, *options]) for _ in range(num_rounds)], unit="s"))


def measure_packing(scheme: str, num_rounds: int) -> None:
    """By stage, in processes of their own; all rounds must give the same bytes."""
    command = [sys.executable, "benchmarks/workers/packing.py", scheme]
    rounds = [json.loads(subprocess.check_output(command, cwd=ROOT)) for _ in range(num_rounds)]
    assert len({each["sha256"] for each in rounds}) == 1
    for stage in rounds[0]["seconds"]:
        print(line(f"packing {scheme}, {stage}", [each["seconds"][stage] for each in rounds], unit="s"), flush=True)
    print(line(f"packing {scheme}, peak memory", [each["peak_mb"] for each in rounds], unit="MB"), flush=True)


def measure_memory(options: Sequence[str], num_streams: int) -> None:
    """Of one server. The K and V of a stream take 18 MB before its blocks are used again: 64 fill a pool of 1 GiB."""
    with server(num_cores(), *options) as started:
        while not is_healthy(f"{started.host}:{started.port}"):
            time.sleep(POLL_S)
        print_memory("ready", started)
        time.sleep(CHECKED_S)
        print_memory("checked", started)
        body = {"max_tokens": NUM_NEW, "temperature": 0}
        asked = [started.send(body | {"prompt": prompt}) for prompt in Prompts().take(NUM_PROMPT, num_streams)]
        for connection in asked:
            while b'"usage"' not in connection.recv(1 << 20):
                pass
            connection.close()
        print_memory(f"after {num_streams} streams", started)
        time.sleep(IDLE_S)
        print_memory(f"idle for {IDLE_S} s", started)


def print_memory(when: str, started: Server) -> None:
    sizes = ", ".join(f"{name} {size:.0f} MB" for name, size in started.memory_mb().items())
    print(f"server, {when:26} {sizes}", flush=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--quantization", choices=PRECISIONS, help="default: what the program chooses")
    flags.add_argument("--only", nargs="+", choices=WHAT, default=WHAT)
    flags.add_argument(
        "--streams", type=int, default=64, help="of 1,000 tokens each, for the memory (default: %(default)s)"
    )
    args = flags.parse_args()
    options = ["--quantization", args.quantization] if args.quantization else []
    if "start" in args.only:
        measure_start(options, args.rounds)
    if "packing" in args.only:
        for scheme in SCHEMES:
            if args.quantization in (None, scheme):
                measure_packing(scheme, args.rounds)
    if "memory" in args.only:
        measure_memory(options, args.streams)


if __name__ == "__main__":
    main()
