"""``gemma3-server batch`` on many machines: the same flags, the same file, rows answered by a Ray cluster.

    python deploy/ray_data.py reviews.csv -o moods.csv --template "Review: {text}\\nMood:" --choice good bad

Owns the pipeline: one task reads the input, an actor on each machine has an engine, and each block of
rows that an engine has answered becomes one file, a part, in a folder that all machines see. A part
has its place in the output and is there whole or not at all: so a block that is computed twice, after
a machine or this program was lost, is one part all the same, and the parts there are need not be
computed again. Ray schedules, moves rows and tries again. Knows nothing of requests or of the model.
"""

import argparse
import logging
import os
import pickle
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from engine.engine_options import EngineOptions
from engine.flags import count, number
from engine.terminal.flag_parser import FlagParser
from engine.terminal.guard import WRONG_USE, is_for_a_person, run_guarded, say
from openai_api.batch.batch_run import Question, task_of
from openai_api.batch.command import (
    add_io_flags,
    add_table_flags,
    check_columns,
    check_files,
    identity_of,
    question_of,
    settings_of,
)
from openai_api.batch.journal import Journal
from openai_api.batch.outputs import encoder
from openai_api.batch.parts import Part, Parts, join
from openai_api.batch.row_engine import RowEngine
from openai_api.batch.sources import open_source
from openai_api.command_line import add_engine_flags, engine_options
from openai_api.settings import ServerSettings

PROGRAM = "deploy/ray_data.py"

try:
    import pyarrow
    import ray
    from ray.data import ActorPoolStrategy, DataContext, read_datasource
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask
    from ray.exceptions import RayTaskError
except ImportError:
    say(f"{PROGRAM}: error: it needs Ray: pip install 'gemma3-270m-server[ray]'")
    raise SystemExit(WRONG_USE) from None

SOME_FAILED = 1
ROWS_PER_BLOCK = 256  # eight times the rows that an engine computes at once: few wait for the longest answer
BLOCKS_AT_ONCE = 2  # in an engine: one begins while the other's last rows are answered
# Of a machine, what its engine leaves to Ray's small tasks, which would wait for ever for a whole CPU.
CPUS_BESIDE_ENGINE = 0.4
CPUS_OF_READER = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """What every machine is told. ``columns`` are those of the output; empty where each row has its own."""

    question: Question | None
    options: EngineOptions
    settings: ServerSettings
    output: Path
    columns: tuple[str, ...]

    @property
    def parts(self) -> Parts:
        """Beside the output."""
        return Parts(self.output.with_name(f"{self.output.name}.parts"))


class Blocks(Datasource):
    """The rows of a file in one task, as reading is much faster than answering."""

    def __init__(self, path: Path, done: frozenset[int]) -> None:
        """Blocks whose first row is in ``done`` are left out."""
        super().__init__()
        self._path = path
        self._done = done

    def estimate_inmemory_data_size(self) -> None:
        """Ray's question; it is not known."""

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        """Ray's: what is to be called on some machine. Called again, it must give the same blocks."""
        path, done = self._path, self._done
        return [ReadTask(lambda: _blocks(path, done), BlockMetadata(None, None, None, None))]


def _blocks(path: Path, done: frozenset[int]) -> Iterator[pyarrow.Table]:
    """Each block as one row of Ray's, which puts many rows together as it likes."""
    with closing(open_source(path)) as source:
        rows, first = source.rows(), 0
        while block := list(islice(rows, ROWS_PER_BLOCK)):
            if first not in done:
                yield pyarrow.table({"first": [first], "rows": [pickle.dumps(block)]})
            first += len(block)


class Answerer:
    """An actor's engine; several of the actor's threads ask it at once."""

    def __init__(self, job: Job) -> None:
        self._engine = RowEngine(job.question, options=job.options, settings=job.settings)
        self._folder = job.parts.folder_of(self._engine.fingerprint)
        self._encode = encoder(job.output, job.columns)

    def __call__(self, block: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write the part of a block. Its rows stay off Ray's store, where a lost machine would take them along."""
        records = self._engine.answers(pickle.loads(block["rows"]))  # noqa: S301 - our own bytes
        part = Part(block["first"], len(records), sum(record.is_failed for record in records))
        unfinished = self._folder / f"{part.name}.{os.uname().nodename}.{os.getpid()}"
        with unfinished.open("wb") as file:
            file.writelines(map(self._encode, records))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._folder / part.name)
        return {"num_rows": part.num_rows}


def main(argv: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    """The exit status: as that of ``gemma3-server batch``."""
    return run_guarded(program, lambda: _run(flag_parser(program).parse(argv)))


def flag_parser(program: str) -> FlagParser:
    """The flags of ``gemma3-server batch``, and how many engines there are."""
    parser = FlagParser(prog=program, description="Answer every row of a file on the machines of a Ray cluster.")
    add_io_flags(parser)
    parser.add_argument(
        "--engines",
        type=number(count(10_000)),
        metavar="N",
        help="Run N engines, one on a machine (default: as many as there are machines).",
    )
    add_table_flags(parser.add_argument_group("table"))
    add_engine_flags(parser)
    return parser


def _run(flags: argparse.Namespace) -> int:
    check_files(flags)
    job, output = _job(flags), flags.output.resolve()
    with closing(Journal(output.with_name(f"{output.name}.journal"))) as journal:
        mark = journal.mark
        identity = {"program": PROGRAM, **identity_of(flags.input, job.question)}
        journal.begin(identity, has_output=journal.has_output or bool(job.parts.found()))
        if mark is None:
            if output.exists() and not job.parts.folder.exists():
                raise ValueError(
                    f"{output}: there is a file that no batch has begun; remove it, or give another --output"
                )
            _answer(flags.input.resolve(), job, num_engines=flags.engines, shows_progress=not flags.quiet)
            mark = join(job.parts.found(), job.output, job.columns)
            journal.set_mark(mark)
        shutil.rmtree(job.parts.folder, ignore_errors=True)
    say(f"{flags.output}: {mark.num_rows} rows, {mark.num_failed} of them failed")
    return SOME_FAILED if mark.num_failed else 0


def _job(flags: argparse.Namespace) -> Job:
    question = question_of(flags)
    with closing(open_source(flags.input)) as source:
        check_columns(question, source.columns)
        columns = (*source.columns, *task_of(question, is_instruction_tuned=True).columns)
    return Job(question, engine_options(flags), settings_of(flags), flags.output.resolve(), columns)


def _answer(source: Path, job: Job, *, num_engines: int | None, shows_progress: bool) -> None:
    """Every block that has no part yet gets one. Raises: ValueError, an engine cannot be started."""
    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    try:
        context = DataContext.get_current()
        context.enable_progress_bars = shows_progress
        context.target_max_block_size = 1  # bytes: each row of Ray's, a block of ours, goes by itself
        threads, num_machines = _threads_and_machines(job.options.threads)
        blocks = read_datasource(
            Blocks(source, frozenset(Part.of(path).first for path in job.parts.found())),
            override_num_blocks=1,
            ray_remote_args={"num_cpus": CPUS_OF_READER},
        )
        told = blocks.map(
            Answerer,
            fn_constructor_args=[job],
            compute=ActorPoolStrategy(size=num_engines or num_machines, max_concurrent_calls_per_actor=BLOCKS_AT_ONCE),
            num_cpus=threads - CPUS_BESIDE_ENGINE,
        )
        for _ in told.iter_internal_ref_bundles():
            pass
    except RayTaskError as error:
        if is_for_a_person(error.cause):
            raise ValueError(str(error.cause)) from None
        raise
    finally:
        ray.shutdown()


def _threads_and_machines(threads: int | None) -> tuple[float, int]:
    """Of an engine, and how many machines have room for one. Raises: ValueError, none has: Ray would wait for ever."""
    cpus = [node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]
    needed = threads or min(cpus, default=1)
    num_machines = sum(each >= needed for each in cpus)
    if num_machines == 0:
        raise ValueError(
            f"--threads {needed:g}: the machines of the cluster have {max(cpus, default=0):g} processors at most"
        )
    return needed, num_machines


if __name__ == "__main__":
    sys.exit(main())
