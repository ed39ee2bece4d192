"""One run of a batch: an engine, the rows that are left, their answers behind those there are.

Owns the order of start and end; ``runner`` has the rows on their way,
``outputs`` the file. Event loop.
"""

import math
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from engine.async_engine import AsyncLLMEngine
from engine.engine_options import EngineOptions
from engine.loading import load_engine
from engine.prefill_pace import Unpaced
from gemma3.progress import loading_news
from openai_api.app_state import AppState, new_app_state
from openai_api.batch.answering import CHAT_URL, COMPLETIONS_URL, DECISIONS_URL, URLS, check, outcome_of
from openai_api.batch.journal import Journal, Mark
from openai_api.batch.line_task import LineTask
from openai_api.batch.outputs import Output
from openai_api.batch.row import BadRow, Columns, Record
from openai_api.batch.runner import in_order
from openai_api.batch.sources import Source
from openai_api.batch.speed_bar import SpeedBar
from openai_api.batch.template_task import Template, TemplateTask
from openai_api.response_store import MemoryStore
from openai_api.settings import ServerSettings

NO_BOUND = 1 << 40  # of what waits in the engine, as nobody waits for it
ROWS_PER_SEAT = 2  # on their way: one computed, one made ready meanwhile

Task = LineTask | TemplateTask


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every row; see ``TemplateTask``."""

    template: Template
    settings: Mapping[str, Any]
    properties: tuple[str, ...]
    column: str

    def url(self, *, is_instruction_tuned: bool) -> str:
        """Who answers."""
        if "questions" in self.settings:
            return DECISIONS_URL
        return CHAT_URL if is_instruction_tuned else COMPLETIONS_URL


async def run_batch(
    engine: AsyncLLMEngine,
    source: Source,
    question: Question | None,
    *,
    num_seqs: int,
    settings: ServerSettings,
    output: Path,
    journal: Journal,
    shows_progress: bool,
) -> Mark:
    """Answer the rows of ``source`` that ``output`` has not yet, ``num_seqs`` being computed at once; ``None`` asks what
    each row says. The engine is started, and ended.

    Raises:
        ValueError: the model cannot be loaded, or the output is another run's; the text says what to do.
        OSError: the output cannot be written.
        EngineNotReadyError: the engine has died for good; what was written stays.
    """
    await engine.start()
    try:
        journal.begin_with_model(engine.info.system_fingerprint)
        task = task_of(question, is_instruction_tuned=engine.info.is_instruction_tuned)
        state = batch_state(engine, settings)
        await check_question(task, state)
        with closing(Output(output, journal, columns=(*source.columns, *task.columns))) as answers:
            rows = islice(source.rows(), answers.mark.num_rows, None)
            try:
                with SpeedBar(source, answers.mark, is_shown=shows_progress) as bar:
                    await answer_all(rows, task, state, answers, bar, num_seqs=num_seqs)
            finally:
                answers.save()
            return answers.mark
    finally:
        await engine.shutdown()


def batch_engine(options: EngineOptions) -> AsyncLLMEngine:
    """One that is still to be started, and has no bound for what waits."""
    return AsyncLLMEngine(
        lambda: load_engine(options, progress=loading_news(), pace=Unpaced()),
        max_num_waiting=NO_BOUND,
        max_waiting_prompt_tokens=NO_BOUND,
        queue_timeout_s=math.inf,
    )


def batch_state(engine: AsyncLLMEngine, settings: ServerSettings) -> AppState:
    """What rows are answered with; it keeps no responses."""
    return new_app_state(engine, settings, MemoryStore(max_responses=1, max_bytes=1))


def task_of(question: Question | None, *, is_instruction_tuned: bool) -> Task:
    """What is done with every row; ``None`` asks what each row says."""
    if question is None:
        return LineTask(URLS)
    return TemplateTask(
        template=question.template,
        url=question.url(is_instruction_tuned=is_instruction_tuned),
        settings=question.settings,
        properties=question.properties,
        column=question.column,
    )


async def check_question(task: Task, state: AppState) -> None:
    """Raises ``ValueError`` if no row could be asked this: it is better told once than in each row."""
    if isinstance(task, TemplateTask):
        request = task.request(dict.fromkeys(task.template.names, "Text"))
        if not isinstance(request, BadRow):
            await check(request, state)


async def answer_all(
    rows: Iterator[Columns | BadRow], task: Task, state: AppState, answers: Output, bar: SpeedBar, *, num_seqs: int
) -> None:
    """Answer ``rows`` and write the answers in their order, ``num_seqs`` being computed at once."""
    async with aclosing(records(rows, task, state, num_seqs=num_seqs)) as answered:
        async for record in answered:
            answers.add(record)
            bar.add(record.num_tokens)


def records(
    rows: Iterable[Columns | BadRow], task: Task, state: AppState, *, num_seqs: int
) -> AsyncGenerator[Record, None]:
    """The answers in the order of ``rows``, ``num_seqs`` being computed at once; to be closed.

    Raises:
        EngineNotReadyError: the engine has died for good.
    """

    async def answer(row: Columns | BadRow) -> Record:
        request = row if isinstance(row, BadRow) else task.request(row)
        outcome = request if isinstance(request, BadRow) else await outcome_of(request, state)
        return task.record(row, outcome)

    return in_order(rows, answer, num_at_once=num_seqs * ROWS_PER_SEAT)
