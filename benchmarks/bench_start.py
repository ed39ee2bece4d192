"""Where the time of a start goes: ``python main.py`` and the server from a warm cache, and each part alone.

python benchmarks/bench_start.py [--quantization int8] [--rounds 5]
"""

import argparse
import contextlib
import http.client
import os
import re
import subprocess
import sys
import time

from common import PRECISIONS, ROOT, line

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
POLL_S = 0.005


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


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--quantization", choices=PRECISIONS, help="default: what the program chooses")
    args = flags.parse_args()
    options = ["--quantization", args.quantization] if args.quantization else []
    for name, code in PARTS.items():
        print(line(name, [seconds([sys.executable, "-c", code]) for _ in range(args.rounds)], unit="s"), flush=True)
    starts = [first_token(MAIN + options) for _ in range(args.rounds)]
    for name, values, unit in zip(
        ("main.py, first token", "main.py, whole process, 1 token", "main.py, peak memory"),
        zip(*starts, strict=True),
        ("s", "s", "MB"),
        strict=True,
    ):
        print(line(name, values, unit=unit), flush=True)
    print(line("server, /health 200", [healthy_after(SERVE + options) for _ in range(args.rounds)], unit="s"))


if __name__ == "__main__":
    main()
