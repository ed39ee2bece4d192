"""The thread that steps: commands in through a queue, news out through ``call_soon_threadsafe``.

Owns ``EngineCore`` from loading to the end; torch and the KV cache are touched nowhere else. All
news of a step cross to the event loop in one call, as plain values. Methods without an underscore
are for the event loop, the others run on the engine thread.

Whatever belongs to one request ends that request alone. Anything else that is raised ends the
thread, for good: what it left behind cannot be trusted. Nothing here keeps its core alive then. So
does a check of the weights that finds damage; it runs beside, on a thread of its own.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import traceback
from collections import abc
from dataclasses import dataclass

from engine.commands import Abort, Add, Look, obey
from engine.engine_core import EngineCore
from engine.engine_info import EngineStats
from engine.loading import LoadedEngine
from engine.news_queue import News
from engine.request_state import running_statuses
from engine.untold_news import UntoldNews
from engine.vocabulary_table import built_when_idle
from engine.weights_check import check_in_background

IDLE_S = 60.0
CHECK_DELAY_S = 0.5  # a start is not over before the first answers

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True)
class _Die:
    """What was loaded cannot be trusted."""

    reason: ValueError


class EngineThread:
    """``deliver(news by request id, stats)`` and ``die()`` are called on the event loop."""

    def __init__(
        self,
        load: abc.Callable[[], LoadedEngine],
        *,
        deliver: abc.Callable[[list[tuple[str, News]], EngineStats], None],
        die: abc.Callable[[], None],
    ) -> None:
        self._load = load
        self._deliver = deliver
        self._die = die
        self._inbox: queue.SimpleQueue[Add | Abort | Look | _Die | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._untold = UntoldNews()

    async def start(self) -> LoadedEngine:
        """Load, and step until ``stop``, or until the thread dies. Raises what loading raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[LoadedEngine] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, done), name="engine", daemon=True)
        self._thread.start()
        return await done

    def send(self, command: Add | Abort | Look) -> None:
        """Have it done before the next step."""
        self._inbox.put(command)

    def stop(self) -> None:
        """End after the step that runs."""
        self._inbox.put(None)

    async def join(self) -> None:
        """Wait for the end."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self, loop: asyncio.AbstractEventLoop, done: "asyncio.Future[LoadedEngine]") -> None:
        try:
            loaded = self._load()
        except BaseException as error:  # whoever awaits start() gets it; what would end a process is wrapped
            told = (
                error if isinstance(error, Exception) else RuntimeError(f"Loading ended with {type(error).__name__}.")
            )
            _on_loop(loop, _set_exception, done, told)
            return
        _on_loop(loop, _set_result, done, loaded)
        inbox = self._inbox
        check_in_background(loaded, lambda error: inbox.put(_Die(error)), delay_s=CHECK_DELAY_S)
        with built_when_idle(loaded.grammars, loaded.core):
            try:
                self._step_until_stopped(loaded.core, loop)
            except BaseException as error:  # not even SystemExit may leave the requests without an end
                log.exception("The engine thread has failed")
                _forget_frames(error)
                _on_loop(loop, self._die)
        del done, loaded  # who keeps the error keeps this frame

    def _step_until_stopped(self, core: EngineCore, loop: asyncio.AbstractEventLoop) -> None:
        """A step's news are told when the next one begins to compute."""
        try:
            while self._take_commands(core, loop):
                result = core.step(on_scheduled=lambda: self._tell(core, loop))
                for request_id, error in result.errors.items():
                    log.error("Request %s failed in its step: %s", request_id, type(error.__cause__ or error).__name__)
                    _forget_frames(error.__cause__ or error)
                self._untold.add(result)
        finally:
            self._tell(core, loop)

    def _tell(self, core: EngineCore, loop: asyncio.AbstractEventLoop) -> None:
        """All news of a step in one call. The event loop works on them while the core computes, which
        it does without the GIL. Told any earlier, they would have the two threads fight for it: the
        event loop gives it back only with each system call, or after 5 ms.
        """
        news = self._untold.take()
        if news:
            _on_loop(loop, self._deliver, news, _stats(core))

    def _take_commands(self, core: EngineCore, loop: asyncio.AbstractEventLoop) -> bool:
        """Take what is in the inbox, waiting while there is nothing to compute. False when it is
        time to end.
        """
        while True:
            if not core.has_unfinished_requests:
                self._tell(core, loop)
            try:
                command = self._next_command(core)
            except queue.Empty:
                return True
            if command is None:
                return False
            if isinstance(command, _Die):
                raise command.reason
            if isinstance(command, Look):
                _on_loop(loop, self._deliver, [], _stats(core))
                _on_loop(loop, command.tell, running_statuses(core.requests.values()))
                continue
            news = obey(command, core)
            if isinstance(command, Abort):
                self._untold.forget(command.request_id)
            elif not command.is_streamed and not news:
                self._untold.hold(command.request_id)
            if news or isinstance(command, Abort):
                _on_loop(loop, self._deliver, news, _stats(core))

    def _next_command(self, core: EngineCore) -> Add | Abort | Look | _Die | None:
        """Raises ``queue.Empty`` rather than to wait while there is something to compute. After a while without that,
        memory is given back.
        """
        if core.has_unfinished_requests:
            return self._inbox.get_nowait()
        try:
            return self._inbox.get(timeout=IDLE_S)
        except queue.Empty:
            core.shrink()
            return self._inbox.get()


def _forget_frames(error: BaseException) -> None:
    """An error that somebody keeps, a handler of logs or a request's reader, must not keep the core
    alive.
    """
    traceback.clear_frames(error.__traceback__)


def _stats(core: EngineCore) -> EngineStats:
    scheduler = core.scheduler
    return EngineStats(
        num_running=scheduler.num_running,
        num_waiting=scheduler.num_waiting,
        kv_cache_usage=scheduler.kv_cache_usage,
        num_used_blocks=scheduler.num_used_blocks,
        num_preemptions=scheduler.num_preemptions,
        prefix_cache_queries=scheduler.num_prefix_query_tokens,
        prefix_cache_hits=scheduler.num_prefix_hit_tokens,
        num_drafts=scheduler.num_drafts,
        num_draft_tokens=scheduler.num_draft_tokens,
        num_accepted_draft_tokens=scheduler.num_accepted_draft_tokens,
        step_sizes=core.step_sizes.sizes,
        num_output_tokens=core.num_output_tokens,
    )


def _on_loop(loop: asyncio.AbstractEventLoop, call: abc.Callable[..., None], *args: object) -> None:
    """Run ``call`` on the event loop; a loop that is closed already needs no news."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)


def _set_result(done: "asyncio.Future[LoadedEngine]", loaded: LoadedEngine) -> None:
    if not done.done():
        done.set_result(loaded)


def _set_exception(done: "asyncio.Future[LoadedEngine]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
