"""``gemma3-server batch``: a file of rows in, their answers out, straight on an engine of its own.

    gemma3-server batch requests.jsonl -o answers.jsonl
    gemma3-server batch reviews.csv -o moods.csv --template "Review: {text}\\nMood:" --choice good bad
    gemma3-server batch mails.csv -o topics.csv --template "{text}" --question "What is this about?" --choice money travel

Owns the flags and the exit status: 0 if every row has its answer, 1 if one has an error instead, 2
for wrong use, 130 after Ctrl-C. The same command goes on where it was stopped. Main thread.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.engine_info import EngineStatus
from engine.flags import count, number
from engine.sampling_params import SETTINGS
from engine.terminal.flag_parser import FlagParser
from engine.terminal.guard import INTERRUPTED, run_guarded, say
from openai_api.batch.answering import DECISIONS_URL
from openai_api.batch.batch_run import Question, batch_engine, run_batch, task_of
from openai_api.batch.journal import Journal, Mark
from openai_api.batch.sources import Source, fingerprint, open_source
from openai_api.batch.template_task import CONFIDENCE_COLUMN, ERROR_COLUMN, Template
from openai_api.command_line import add_engine_flags, engine_options
from openai_api.errors import ApiError
from openai_api.request.decision_fields import DecisionRequest
from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.request.questions import of_decisions
from openai_api.request.validation import validate
from openai_api.settings import ServerSettings

PROGRAM = "gemma3-server batch"
SOME_FAILED = 1
JOURNAL_SUFFIX = ".journal"
FORMATS = (".jsonl", ".csv")
MAX_LISTED = 20  # names of columns in an error
TABLES = (".csv", ".parquet")  # whose rows all have the same columns


def main(argv: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    """The exit status."""
    return run_guarded(program, lambda: _run(flag_parser(program).parse(argv)))


def flag_parser(program: str) -> FlagParser:
    """All flags."""
    parser = FlagParser(prog=program, description="Answer every row of a file: OpenAI's batch lines, or a table.")
    add_io_flags(parser)
    add_table_flags(parser.add_argument_group("table"))
    add_engine_flags(parser)
    return parser


def add_io_flags(parser: FlagParser) -> None:
    """Which file is read and which is written."""
    add = parser.add_argument
    add("input", type=Path, help="Read these rows: .jsonl, .csv or .parquet.")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="Write the answers here: .jsonl or .csv.")
    add("--quiet", action="store_true", help="Show no progress (default: a bar, if stderr is a terminal).")


def add_table_flags(group: argparse._ArgumentGroup) -> None:
    """The flags that ``question_of`` reads."""
    add = group.add_argument
    add(
        "--template",
        metavar="TEXT",
        help="Ask this of every row; {NAME} is a column, \\n a line break (default: rows are requests).",
    )
    add(
        "--question",
        metavar="TEXT",
        help="Ask this about what --template makes of a row, and take the likeliest --choice "
        "(default: the model writes a choice, token by token).",
    )
    shape = group.add_mutually_exclusive_group().add_argument
    shape("--choice", nargs="+", metavar="TEXT", help="Answer with one of these (default: freely).")
    shape("--schema", metavar="FILE", help="Answer in JSON by the schema there, its properties as columns.")
    add("--column", default="answer", metavar="NAME", help="Put answers into this column (default: %(default)s).")
    add(
        "--max-tokens",
        type=number(count(1_000_000)),
        default=256,
        metavar="N",
        help="End an answer after N tokens (default: %(default)s).",
    )
    add(
        "--temperature",
        type=number(SETTINGS["temperature"]),
        default=0.0,
        metavar="N",
        help="Draw at this temperature; 0 takes the likeliest token (default: %(default)s).",
    )
    add(
        "--seed", type=number(SETTINGS["seed"]), metavar="N", help="Draw the same for the same seed (default: another)."
    )


def _run(flags: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    check_files(flags)
    question = question_of(flags)
    journal_path = flags.output.with_name(flags.output.name + JOURNAL_SUFFIX)
    with closing(open_source(flags.input)) as source:
        check_columns(question, source.columns)
        with closing(Journal(journal_path)) as journal:
            journal.begin(identity_of(flags.input, question), has_output=journal.has_output)
            mark = _answer(flags, question, source, journal)
    say(f"{flags.output}: {mark.num_rows} rows, {mark.num_failed} of them failed")
    return SOME_FAILED if mark.num_failed else 0


def _answer(flags: argparse.Namespace, question: Question | None, source: Source, journal: Journal) -> Mark:
    options = engine_options(flags)
    engine = batch_engine(options)
    run = run_batch(
        engine,
        source,
        question,
        num_seqs=options.max_num_seqs,
        settings=settings_of(flags),
        output=flags.output,
        journal=journal,
        shows_progress=not flags.quiet and sys.stderr.isatty(),
    )
    try:
        return asyncio.run(run)
    except KeyboardInterrupt:
        if engine.status is EngineStatus.LOADING:
            # The interpreter would be taken apart under the thread that loads, and abort.
            os._exit(INTERRUPTED)
        raise


def check_files(flags: argparse.Namespace) -> None:
    """Raises ``ValueError`` if input or output is a pipe, which a run could not go on with, or both are one file, or the
    output is of no format or of one that the input's rows do not fit.
    """
    if flags.output.suffix.lower() not in FORMATS:
        raise ValueError(f"--output {flags.output}: its name must end with {' or '.join(FORMATS)}")
    is_table = flags.input.suffix.lower() in TABLES
    if flags.output.suffix.lower() == ".csv" and (flags.template is None or not is_table):
        raise ValueError(
            f"--output {flags.output}: only rows of a .csv or .parquet file have the columns of a .csv file"
        )
    for path in (flags.input, flags.output):
        if path.is_fifo():
            raise ValueError(f"{path}: it is a pipe, and a run that goes on needs a file")
    if flags.output.exists() and flags.output.samefile(flags.input):
        raise ValueError(f"--output {flags.output}: it is the input; give another one")


def check_columns(question: Question | None, columns: Sequence[str]) -> None:
    """Raises ``ValueError`` if no row of a file with these ``columns`` can be asked; each row may have its own if there are
    none.
    """
    if question is None or not columns:
        return
    for name in question.template.names:
        if name not in columns:
            raise ValueError(f"--template: the file has no column {name!r}; it has {_listed(columns)}")
    for name in task_of(question, is_instruction_tuned=False).columns:
        if name in columns:
            other = "give another --column" if name == question.column else "rename it there"
            raise ValueError(f"the answer's column {name!r} is in the file already; {other}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:MAX_LISTED])) + (", ..." if len(names) > MAX_LISTED else "")


def settings_of(flags: argparse.Namespace) -> ServerSettings:
    """By which names requests may ask for the model."""
    return ServerSettings(served_model_names=tuple(flags.served_model_name), serves_any_model_name=flags.any_model_name)


def question_of(flags: argparse.Namespace) -> Question | None:
    """``None`` without a template: the rows are requests.

    Raises:
        ValueError: the template or the schema is none, or a flag cannot be beside the others.
        OSError: the schema cannot be read.
    """
    _check_what_goes_together(flags)
    if flags.template is None:
        return None
    own = (ERROR_COLUMN,) if flags.question is None else (ERROR_COLUMN, CONFIDENCE_COLUMN)
    if not flags.column:
        raise ValueError("--column must have at least 1 character")
    if flags.column in own:
        raise ValueError(f"--column {flags.column}: the command has a column of that name itself")
    # As a shell leaves them: there is no other easy way to write a line break.
    template = Template(_with_line_breaks(flags.template))
    if flags.question is not None:
        settings = _decision(_with_line_breaks(flags.question), flags.choice)
        return Question(template, settings, properties=(), column=flags.column)
    settings = {"max_tokens": flags.max_tokens, "temperature": flags.temperature}
    if flags.seed is not None:
        settings["seed"] = flags.seed
    properties: tuple[str, ...] = ()
    if flags.choice is not None:
        settings["structured_outputs"] = {"choice": flags.choice}
    if flags.schema is not None:
        schema = _schema(flags.schema)
        properties = tuple(schema["properties"])
        settings["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return Question(template, settings, properties=properties, column=flags.column)


def _check_what_goes_together(flags: argparse.Namespace) -> None:
    """Raises ``ValueError``: a flag that another one is needed for, or that would have no effect."""
    for name in ("question", "choice", "schema"):
        if getattr(flags, name) is not None and flags.template is None:
            raise ValueError(f"--{name} needs --template: without it each row is a request of its own")
    if flags.question is None:
        return
    if flags.choice is None:
        raise ValueError("--question needs --choice: the answers to choose from")
    for name, is_given in (("temperature", flags.temperature != 0), ("seed", flags.seed is not None)):
        if is_given:
            raise ValueError(f"--{name} does not go with --question, which draws nothing")


def _with_line_breaks(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _decision(question: str, choices: Sequence[str]) -> Mapping[str, Any]:
    """The members of a body of ``/v1/decisions`` beside its input. Raises: ValueError, it would refuse them."""
    asked = {"type": "choice", "instructions": question, "choices": [{"value": choice} for choice in choices]}
    members = {"questions": [asked]}
    try:
        of_decisions(validate({"input": "", **members}, DecisionRequest, FIELDS_BY_ENDPOINT[DECISIONS_URL]).questions)
    except ApiError as error:
        raise ValueError(f"--choice: {error}") from None
    return members


def _schema(name: str) -> Mapping[str, Any]:
    """Raises ``ValueError`` for what is not the schema of an object with properties."""
    try:
        schema = json.loads(Path(name).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"--schema {name}: {error}") from None
    if not (isinstance(schema, dict) and isinstance(schema.get("properties"), dict) and schema["properties"]):
        raise ValueError(f"--schema {name}: it is not the schema of an object with 'properties'")
    if ERROR_COLUMN in schema["properties"]:
        raise ValueError(
            f"--schema {name}: the command has a column {ERROR_COLUMN!r} itself; call the property otherwise"
        )
    return schema


def identity_of(input_path: Path, question: Question | None) -> Mapping[str, object]:
    """What makes two runs the same, by the names of flags. Raises: OSError, the input cannot be read."""
    told: dict[str, object] = {"input": fingerprint(input_path)}
    if question is None:
        return told | {"--template": None}
    settings = dict(question.settings)
    return told | {
        "--template": question.template.text,
        "--choice": settings.pop("structured_outputs", None),
        "--schema": settings.pop("response_format", None),
        "--question": settings.pop("questions", None),
        "--column": question.column,
        **{f"--{name.replace('_', '-')}": value for name, value in settings.items()},
    }
