"""Rows in, answers out, for a program that has no event loop: an engine in this process, as a function.

Owns the engine's event loop and the thread that it runs on. Knows nothing of files. Any thread may
ask, several at once; while they wait, their rows share the engine's steps.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

from engine.engine_options import EngineOptions
from openai_api.batch.batch_run import Question, batch_engine, batch_state, check_question, records, task_of
from openai_api.batch.row import BadRow, Columns, Record
from openai_api.settings import ServerSettings

T = TypeVar("T")
_DEFAULT_OPTIONS = EngineOptions()
_DEFAULT_SETTINGS = ServerSettings()


class RowEngine:
    """Ready when made; to be closed, or in a ``with`` statement.

    Attributes:
        columns: what an answer adds to a row.
        fingerprint: the model and its arithmetic: equal ones give the same bytes.

    Raises:
        ValueError: the model cannot be loaded, or no row can be asked the question; the text says what to do.
        OSError: a file of the model cannot be read.
    """

    def __init__(
        self,
        question: Question | None,
        *,
        options: EngineOptions = _DEFAULT_OPTIONS,
        settings: ServerSettings = _DEFAULT_SETTINGS,
    ) -> None:
        """``question`` is asked of every row; ``None`` asks what each row says."""
        self._num_seqs = options.max_num_seqs
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rows", daemon=True)
        self._thread.start()
        self._engine = batch_engine(options)
        try:
            self._run(self._engine.start())
        except BaseException:
            self._end_loop()
            raise
        self.fingerprint = self._engine.info.system_fingerprint
        self._task = task_of(question, is_instruction_tuned=self._engine.info.is_instruction_tuned)
        self._state = batch_state(self._engine, settings)
        self.columns = self._task.columns
        try:
            self._run(check_question(self._task, self._state))
        except BaseException:
            self.close()
            raise

    def answers(self, rows: Iterable[Columns | BadRow]) -> list[Record]:
        """A record for each row, in their order; one that cannot be answered has its reason.

        Raises:
            EngineNotReadyError: the engine has died for good.
        """
        return self._run(self._answers(rows))

    async def _answers(self, rows: Iterable[Columns | BadRow]) -> list[Record]:
        async with aclosing(records(rows, self._task, self._state, num_seqs=self._num_seqs)) as answered:
            return [record async for record in answered]

    def close(self) -> None:
        """Ends the engine; nothing may be asked any more."""
        self._run(self._engine.shutdown())
        self._end_loop()

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
