"""The life of the engine thread: loading, ready, draining, dead; loaded anew when it has died.

Owns the thread, what it has loaded, and when dying again and again means that only a new process
helps. Knows no request: whoever has some is told of each death. Event loop.
"""

import asyncio
import gc
import logging
import time
from collections import abc, deque

from engine.commands import Abort, Add, Look
from engine.engine_info import EngineStats, EngineStatus
from engine.engine_thread import EngineThread
from engine.loading import LoadedEngine
from engine.news_queue import News

MAX_DEATHS, DEATHS_WITHIN_S = 3, 60.0  # of the engine thread, until only a new process helps

log = logging.getLogger("gemma3")


class EngineLife:
    """``load`` runs on the engine thread, and again if that dies. Mutable: ``status``, ``loaded``."""

    def __init__(
        self,
        load: abc.Callable[[], LoadedEngine],
        *,
        deliver: abc.Callable[[list[tuple[str, News]], EngineStats], None],
        on_death: abc.Callable[[], None],
    ) -> None:
        self.status = EngineStatus.LOADING
        self.loaded: LoadedEngine | None = None
        self._load = load
        self._deliver = deliver
        self._on_death = on_death
        self._thread = self._new_thread()
        self._deaths_s: deque[float] = deque(maxlen=MAX_DEATHS)
        self._reviving: asyncio.Task[None] | None = None
        self._has_failed = asyncio.Event()

    def _new_thread(self) -> EngineThread:
        return EngineThread(self._load, deliver=self._deliver, die=self._die)

    def ready(self) -> LoadedEngine:
        """What was loaded. Raises: EngineNotReadyError, it is not."""
        if self.loaded is None:
            self.status.check_ready()
        assert self.loaded is not None
        return self.loaded

    def send(self, command: Add | Abort | Look) -> None:
        """To the thread, which obeys between two steps."""
        self._thread.send(command)

    async def start(self) -> None:
        """Load and become ready; raises what loading raises. The event loop stays free meanwhile."""
        try:
            self.loaded = await self._thread.start()
        except Exception:
            self.status = EngineStatus.DEAD
            raise
        if self.status is EngineStatus.LOADING:
            self.status = EngineStatus.READY

    async def failed(self) -> None:
        """Return when only a new process helps: the thread has died too often, or cannot be loaded again."""
        await self._has_failed.wait()

    async def shutdown(self) -> None:
        """End the thread. One that is still loading is left to the end of the process."""
        if self._reviving is not None:
            self._reviving.cancel()
        self._thread.stop()
        if self.loaded is not None:
            await self._thread.join()

    def _die(self) -> None:
        """The thread has ended by itself."""
        self._on_death()
        self.loaded = None
        if self.status is EngineStatus.DRAINING:
            return
        self._deaths_s.append(time.monotonic())
        if len(self._deaths_s) == MAX_DEATHS and self._deaths_s[-1] - self._deaths_s[0] < DEATHS_WITHIN_S:
            self._fail()
        else:
            self.status = EngineStatus.LOADING
            self._reviving = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        """A new thread with a new engine, when nothing is left of the old."""
        await self._thread.join()
        gc.unfreeze()  # a program may have set what it loaded apart from collections
        gc.collect()
        self._thread = self._new_thread()
        try:
            await self.start()
        except Exception:
            log.exception("The engine cannot be loaded again")
            self._fail()

    def _fail(self) -> None:
        self.status = EngineStatus.DEAD
        self._has_failed.set()
