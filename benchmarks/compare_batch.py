"""``gemma3-server batch`` beside loops over HTTP: llama.cpp's server and our own, rows a second of the same rows, in turn.

    python benchmarks/compare_batch.py LLAMA_SERVER MODEL.gguf [--cases choice extraction] [--rows 256] [--streams 16]

The batch has its own engine and reads a file; a loop keeps ``--streams`` connections busy, each with one row after the
other. The prompts are the same, and so is the shape of an answer: a grammar of 77 labels, or a JSON schema. All greedy.
"""

import asyncio
import json
import queue
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench_batch import SHAPES, batch_s, task_of
from common import line, parser, print_header, print_json
from serving import Server, llama_server, server
from structured_tasks import LABELS, SCHEMA, new_rows

from engine.async_engine import AsyncLLMEngine
from engine.engine_options import EngineOptions
from engine.loading import load_engine
from engine.prefill_pace import Unpaced
from openai_api.app_state import new_app_state
from openai_api.response_store import MemoryStore
from openai_api.settings import ServerSettings

LABELS_GRAMMAR = "root ::= " + " | ".join(json.dumps(label) for label in LABELS)
"""Of llama.cpp; our server takes it too."""

OF_HTTP: Mapping[str, Mapping[str, Any]] = {
    "choice": {"grammar": LABELS_GRAMMAR},
    "extraction": {"json_schema": SCHEMA},
}


def loop_s(address: Server, case: str, rows: Sequence[Mapping[str, str]], num_streams: int) -> float:
    """All rows over ``num_streams`` connections that are kept."""
    task, waiting, failures = task_of(case), queue.SimpleQueue[str | None](), []
    for row in rows:
        body = {"prompt": task.request(row).body["prompt"], "max_tokens": 200, "temperature": 0, **OF_HTTP[case]}
        waiting.put(json.dumps(body))

    def ask() -> None:
        connection = address.connect()
        while (body := waiting.get()) is not None:
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                failures.append(content)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(num_streams)]
    for _ in threads:
        waiting.put(None)
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    return time.perf_counter() - began_s


async def batch_figures(case: str, args: Any) -> list[float]:
    """Rows a second of each round, which has rows of its own: no prefix cache knows them."""
    options = EngineOptions(threads=args.threads)
    engine = AsyncLLMEngine(
        lambda: load_engine(options, pace=Unpaced()), max_num_waiting=1 << 40, max_waiting_prompt_tokens=1 << 40
    )
    await engine.start()
    state = new_app_state(engine, ServerSettings(), MemoryStore(max_responses=1, max_bytes=1))
    await batch_s(new_rows(0, args.streams), task_of(case), state, options.max_num_seqs)
    speeds = []
    for round_number in range(1, args.rounds + 1):
        rows = new_rows(round_number * args.rows, args.rows)
        speeds.append(args.rows / await batch_s(rows, task_of(case), state, options.max_num_seqs))
    await engine.shutdown()
    return speeds


def loop_figures(address: Server, case: str, args: Any) -> list[float]:
    """The same of a loop."""
    loop_s(address, case, new_rows(0, args.streams), args.streams)
    rounds = [new_rows(number * args.rows, args.rows) for number in range(1, args.rounds + 1)]
    return [args.rows / loop_s(address, case, rows, args.streams) for rows in rounds]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("llama_server")
    made.add_argument("model")
    made.add_argument("--cases", nargs="+", choices=SHAPES, default=list(SHAPES))
    made.add_argument("--streams", type=int, default=16)
    made.add_argument("--rows", type=int, default=256)
    args = made.parse_args()
    bandwidth = print_header(args.threads, f"{args.rows} rows, {args.streams} connections")
    figures: dict[str, list[float]] = {}
    for case in args.cases:
        told = {"batch": asyncio.run(batch_figures(case, args))}
        with server(args.threads) as ours:
            told["our server"] = loop_figures(ours, case, args)
        with llama_server(args.llama_server, args.model, args.threads, args.streams) as port:
            told["llama-server"] = loop_figures(Server("127.0.0.1", port, 0), case, args)
        for name, speeds in told.items():
            ratio = statistics.median(told["batch"]) / statistics.median(speeds)
            print(line(f"{case}, {name}", speeds, f"batch {ratio:.2f}x", unit="rows/s"), flush=True)
            figures[f"{case} {name}"] = speeds
    print_json("compare_batch", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
