"""Where the time of a start goes: ``python main.py`` from a warm cache, and each part alone.

python benchmarks/bench_start.py [--rounds 5]
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPEN = "from gemma3 import embedded; from gemma3.checkpoint import open_checkpoint as o; c = o(embedded.embedded_gguf()[0]); "
PARTS = {
    "python itself": "",
    "import torch": "import torch",
    "open the checkpoint (no torch)": OPEN,
    "... and build the tokenizer": OPEN + "c.load_tokenizer()",
    "... and load the weights (torch)": OPEN + "from gemma3.weights import load_model; load_model(c)",
}


def seconds(command: list[str]) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for name, code in PARTS.items():
        walls = [seconds([sys.executable, "-c", code])[0] for _ in range(rounds)]
        print(f"{name:34} median {statistics.median(walls):.2f} s   [{min(walls):.2f}, {max(walls):.2f}]")
    firsts, walls = [], []
    for _ in range(rounds):
        wall, log = seconds([sys.executable, "main.py", "Once upon a time", "--max-new-tokens", "1"])
        firsts.append(float(re.search(r"([\d.]+) s after start", log)[1]))
        walls.append(wall)
    print(
        f"{'main.py, first token':34} median {statistics.median(firsts):.2f} s   [{min(firsts):.2f}, {max(firsts):.2f}]"
    )
    print(
        f"{'main.py, whole process, 1 token':34} median {statistics.median(walls):.2f} s   [{min(walls):.2f}, {max(walls):.2f}]"
    )


if __name__ == "__main__":
    main()
