"""``gemma3-server batch`` beside the bare engine, in turn in one run: rows a second of the same rows.

    python benchmarks/bench_batch.py [--cases choice extraction] [--num-seqs 16 32 64] [--rows 1000] [--rounds 3]

The bare engine has every prompt's tokens and the compiled grammar at hand, and nobody who reads its
answers. The batch reads, renders, tokenises, and writes lines of JSON to a file. Every round has rows
of its own, which no prefix cache knows.
"""

import asyncio
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import line, parser, print_header, print_json
from structured_tasks import LABELS, SCHEMA, new_rows

from engine import LLMEngine
from engine.async_engine import AsyncLLMEngine
from engine.engine_options import EngineOptions
from engine.loading import load_engine
from engine.prefill_pace import Unpaced
from openai_api.answer.generation import Job
from openai_api.app_state import AppState, new_app_state
from openai_api.batch.answering import COMPLETIONS_URL
from openai_api.batch.batch_run import answer_all
from openai_api.batch.journal import Journal
from openai_api.batch.outputs import Output
from openai_api.batch.sources import open_source
from openai_api.batch.speed_bar import SpeedBar
from openai_api.batch.template_task import Template, TemplateTask
from openai_api.endpoints.completions import render_completion_request
from openai_api.request.schemas import CompletionRequest
from openai_api.response_store import MemoryStore
from openai_api.settings import ServerSettings

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "choice": {"structured_outputs": {"choice": list(LABELS)}},
    "extraction": {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
}


def task_of(case: str) -> TemplateTask:
    settings = {"max_tokens": 200, "temperature": 0.0, **SHAPES[case]}
    properties = tuple(SCHEMA["properties"]) if case == "extraction" else ()
    template = Template("Message: {text}\nAnswer: ")
    return TemplateTask(
        template=template, url=COMPLETIONS_URL, settings=settings, properties=properties, column="answer"
    )


async def jobs_of(task: TemplateTask, rows: Sequence[Mapping[str, str]], state: AppState) -> list[Job]:
    bodies = [task.request(row).body for row in rows]
    return [await render_completion_request(CompletionRequest.model_validate(b), "bare", state) for b in bodies]


def bare_s(engine: LLMEngine, jobs: Sequence[Job]) -> float:
    began_s = time.perf_counter()
    for number, job in enumerate(jobs):
        engine.core.add_request(str(number), job.prompts[0], job.params)
    while engine.core.has_unfinished_requests:
        result = engine.core.step()
        assert not result.errors, result.errors
    return time.perf_counter() - began_s


async def batch_s(rows: Sequence[Mapping[str, str]], task: TemplateTask, state: AppState, num_seqs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source, journal = open_source(path), Journal(Path(folder) / "journal")
        output = Output(Path(folder) / "out.jsonl", journal, columns=())
        began_s = time.perf_counter()
        bar = SpeedBar(source, output.mark, is_shown=False)
        await answer_all(source.rows(), task, state, output, bar, num_seqs=num_seqs)
        output.save()
        seconds = time.perf_counter() - began_s
        assert output.mark.num_failed == 0
        for each in (output, journal, source):
            each.close()
        return seconds


async def compare(case: str, num_seqs: int, args: Any) -> dict[str, list[float]]:
    options = EngineOptions(max_num_seqs=num_seqs, threads=args.threads)
    engine = AsyncLLMEngine(
        lambda: load_engine(options, pace=Unpaced()),
        max_num_waiting=1 << 40,
        max_waiting_prompt_tokens=1 << 40,
        queue_timeout_s=math.inf,
    )
    await engine.start()
    bare = LLMEngine(max_num_seqs=num_seqs, threads=args.threads)
    state, task = new_app_state(engine, ServerSettings(), MemoryStore(max_responses=1, max_bytes=1)), task_of(case)
    figures: dict[str, list[float]] = {"bare": [], "batch": []}
    for round_number in range(args.rounds + 1):
        rows = new_rows(round_number * args.rows, args.rows)
        jobs = await jobs_of(task, rows, state)
        seconds = {"bare": bare_s(bare, jobs), "batch": await batch_s(rows, task, state, num_seqs)}
        if round_number:  # the first warms up
            for name, value in seconds.items():
                figures[name].append(args.rows / value)
    await engine.shutdown()
    return figures


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--cases", nargs="+", choices=SHAPES, default=list(SHAPES))
    made.add_argument("--num-seqs", type=int, nargs="+", default=[16, 32, 64])
    made.add_argument("--rows", type=int, default=1000)
    args = made.parse_args()
    bandwidth = print_header(args.threads, f"{args.rows} rows")
    figures: dict[str, list[float]] = {}
    for case in args.cases:
        for num_seqs in args.num_seqs:
            told = asyncio.run(compare(case, num_seqs, args))
            ratio = [batch / bare for bare, batch in zip(told["bare"], told["batch"], strict=True)]
            print(line(f"{case}, {num_seqs} at once, bare", told["bare"], unit="rows/s"))
            print(
                line(
                    f"{case}, {num_seqs} at once, batch",
                    told["batch"],
                    f"{min(ratio):.2f} to {max(ratio):.2f}x",
                    unit="rows/s",
                )
            )
            figures |= {f"{case} {num_seqs} {name}": values for name, values in told.items()}
    print_json("batch", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
