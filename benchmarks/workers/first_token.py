"""Prompts that come at once: when each of them has its first token. Runs in the Python of the version that is measured.

The standard library and the engine only. A line of JSON in for each run, ``prompts`` and ``max_tokens``; a line out, the
seconds of each prompt. The first line out says that the engine is loaded.
"""

import argparse
import json
import sys
import time

from engine.engine_core import EngineCore
from engine.engine_options import EngineOptions
from engine.loading import load_engine
from engine.prefill_pace import PrefillPace, Unpaced
from engine.sampling_params import SamplingParams


def first_tokens_s(core: EngineCore, prompts: list[list[int]], max_tokens: int) -> list[float]:
    """In the order of ``prompts``, from when all of them were queued."""
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    for i, ids in enumerate(prompts):
        core.add_request(str(i), ids, params)
    first_s: dict[str, float] = {}
    began_s = time.perf_counter()
    while core.has_unfinished_requests:
        result = core.step()
        assert not result.errors, result.errors
        for output in result.outputs:
            if output.deltas:
                first_s.setdefault(output.request_id, time.perf_counter() - began_s)
    return [first_s[str(i)] for i in range(len(prompts))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quantization", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--unpaced", action="store_true")
    args = parser.parse_args()
    options = EngineOptions(quantization=args.quantization, threads=args.threads, prefix_caching=False)
    core = load_engine(options, pace=Unpaced() if args.unpaced else PrefillPace()).core
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(first_tokens_s(core, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
