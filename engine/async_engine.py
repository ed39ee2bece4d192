"""The engine behind an event loop: one thread that steps, one queue per request.

Only plain values cross: commands go in through a queue, outputs come back through ``call_soon_threadsafe``, all those of a step in
one call. Everything public is called on the event loop, ``render_chat`` and ``tokenizer`` from any thread; ``_loop``
and below run on the engine thread, which alone touches ``EngineCore``, torch and the KV cache.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from engine.engine_core import EngineCore
from engine.engine_info import EngineStats, EngineStatus, ModelInfo
from engine.errors import (
    DeadlineError,
    EngineError,
    EngineNotReadyError,
    QueueFullError,
    QueueTimeoutError,
    StepError,
)
from engine.loading import EngineOptions, LoadedEngine, load_engine
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from gemma3.text.chat import ChatPrompt
from gemma3.text.tokenizer import Gemma3Tokenizer

QUEUE_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 600.0

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True)
class _Add:
    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    prediction_token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: str


_Command = _Add | _Abort | None
_News = RequestOutput | EngineError


@dataclass(slots=True)
class _Client:
    """The event loop's end of a request. Mutable."""

    news: "asyncio.Queue[_News]" = field(default_factory=asyncio.Queue)
    is_started: bool = False


class AsyncLLMEngine:
    """``load`` makes the engine; it runs on the engine thread."""

    def __init__(self, load: Callable[[], LoadedEngine], *, max_num_waiting: int = 1_024) -> None:
        self.status = EngineStatus.LOADING
        self._load = load
        self._max_num_waiting = max_num_waiting
        self._loaded: LoadedEngine | None = None
        self._stats = EngineStats()
        self._clients: dict[str, _Client] = {}
        self._inbox: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._mean_request_s = 1.0

    @classmethod
    def from_options(cls, options: EngineOptions) -> "AsyncLLMEngine":
        return cls(lambda: load_engine(options), max_num_waiting=options.max_num_waiting)

    @property
    def info(self) -> ModelInfo:
        return self._ready().info

    @property
    def tokenizer(self) -> Gemma3Tokenizer:
        return self._ready().tokenizer

    def stats(self) -> EngineStats:
        return self._stats

    def _ready(self) -> LoadedEngine:
        if self._loaded is None:
            self.status.check_ready()
        assert self._loaded is not None
        return self._loaded

    def render_chat(
        self, messages: Sequence[tuple[str, str]], *, add_generation_prompt: bool, continue_final_message: bool
    ) -> ChatPrompt:
        """Messages as token ids; ``RequestError`` with ``param="messages"`` if they cannot be a prompt."""
        return self._ready().render_chat(
            messages, add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message
        )

    async def start(self) -> None:
        """Load and become ready; raises what loading raises. The event loop stays free meanwhile."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[LoadedEngine] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, done), name="engine", daemon=True)
        self._thread.start()
        try:
            self._loaded = await done
        except Exception:
            self.status = EngineStatus.DEAD
            raise
        if self.status is EngineStatus.LOADING:
            self.status = EngineStatus.READY

    def check_admission(self) -> None:
        """Raise ``QueueFullError`` if a request would be refused now."""
        num_waiting = sum(not client.is_started for client in self._clients.values())
        if num_waiting >= self._max_num_waiting:
            retry_after_s = min(120, max(1, round(num_waiting * self._mean_request_s)))
            raise QueueFullError(
                f"{num_waiting} requests wait already; at most {self._max_num_waiting} may.",
                retry_after_s=retry_after_s,
            )

    async def generate(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prediction_token_ids: Sequence[int] = (),
    ) -> AsyncGenerator[RequestOutput, None]:
        """Outputs until the request has finished. Closing the generator early aborts the request.

        The first output comes when the request leaves the queue; it may have no deltas yet. Where the output is as
        predicted it comes faster; what it is does not depend on the prediction.

        Raises:
            RequestError: the request cannot be served as it is.
            EngineNotReadyError, QueueFullError, QueueTimeoutError, DeadlineError, StepError.
        """
        self.status.check_ready()
        self.check_admission()
        client = self._clients[request_id] = _Client()
        self._inbox.put(_Add(request_id, tuple(prompt_token_ids), params, tuple(prediction_token_ids)))
        began_s, has_ended = time.monotonic(), False
        try:
            async for output in self._outputs(client, began_s):
                has_ended = output.finished
                yield output
        except EngineError as error:
            has_ended = not isinstance(error, QueueTimeoutError | DeadlineError)
            raise
        finally:
            del self._clients[request_id]
            if has_ended:
                self._mean_request_s += 0.1 * (time.monotonic() - began_s - self._mean_request_s)
            else:
                self._inbox.put(_Abort(request_id))

    async def _outputs(self, client: _Client, began_s: float) -> AsyncGenerator[RequestOutput, None]:
        """News of a request as it comes, until the last; a deadline or an error ends it."""
        while True:
            limit_s = REQUEST_TIMEOUT_S if client.is_started else QUEUE_TIMEOUT_S
            try:
                async with asyncio.timeout(began_s + limit_s - time.monotonic()):
                    news = await client.news.get()
            except TimeoutError:
                raise _timeout_error(client) from None
            if isinstance(news, EngineError):
                raise news
            yield news
            if news.finished:
                return

    async def drain(self, timeout_s: float) -> None:
        """Take no more requests and return when none is left. At the deadline the rest get ``EngineNotReadyError``."""
        self.status = EngineStatus.DRAINING
        deadline_s = time.monotonic() + timeout_s
        while self._clients and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        for client in self._clients.values():
            client.news.put_nowait(EngineNotReadyError("The server is shutting down."))

    async def shutdown(self) -> None:
        """End the engine thread. One that is still loading is left to the end of the process."""
        self._inbox.put(None)
        if self._thread is not None and self._loaded is not None:
            await asyncio.to_thread(self._thread.join)

    def _deliver(self, news: list[tuple[str, _News]], stats: EngineStats) -> None:
        """One step's news, on the event loop."""
        self._stats = stats
        for request_id, item in news:
            client = self._clients.get(request_id)
            if client is not None:
                client.is_started = True
                client.news.put_nowait(item)

    def _die(self) -> None:
        self.status = EngineStatus.DEAD
        for client in self._clients.values():
            client.news.put_nowait(StepError("The engine has failed and must be restarted."))

    # The engine thread, from here on.

    def _run(self, loop: asyncio.AbstractEventLoop, done: "asyncio.Future[LoadedEngine]") -> None:
        try:
            loaded = self._load()
        except Exception as error:  # whoever awaits start() gets it
            _on_loop(loop, _set_exception, done, error)
            return
        _on_loop(loop, _set_result, done, loaded)
        try:
            self._step_until_stopped(loaded.core, loop)
        except Exception:
            log.exception("The engine thread has failed")
            _on_loop(loop, self._die)

    def _step_until_stopped(self, core: EngineCore, loop: asyncio.AbstractEventLoop) -> None:
        while self._take_commands(core, loop):
            result = core.step()
            for request_id, error in result.errors.items():
                log.error("Request %s failed in its step: %s", request_id, type(error.__cause__ or error).__name__)
            news: list[tuple[str, _News]] = [(output.request_id, output) for output in result.outputs]
            _on_loop(loop, self._deliver, [*news, *result.errors.items()], _stats(core))

    def _take_commands(self, core: EngineCore, loop: asyncio.AbstractEventLoop) -> bool:
        """Take what is in the inbox, waiting while there is nothing to compute. False when it is time to end."""
        while True:
            try:
                command = self._inbox.get(block=not core.has_unfinished_requests)
            except queue.Empty:
                return True
            if command is None:
                return False
            self._obey(command, core, loop)

    def _obey(self, command: _Add | _Abort, core: EngineCore, loop: asyncio.AbstractEventLoop) -> None:
        if isinstance(command, _Abort):
            core.abort_request(command.request_id)
            _on_loop(loop, self._deliver, [], _stats(core))
            return
        try:
            core.add_request(
                command.request_id,
                command.prompt_token_ids,
                command.params,
                prediction_token_ids=command.prediction_token_ids,
            )
        except EngineError as error:
            _on_loop(loop, self._deliver, [(command.request_id, error)], _stats(core))


def _timeout_error(client: _Client) -> EngineError:
    if client.is_started:
        return DeadlineError(f"The request took longer than {REQUEST_TIMEOUT_S:.0f} s.")
    return QueueTimeoutError(f"No place became free within {QUEUE_TIMEOUT_S:.0f} s.")


def _stats(core: EngineCore) -> EngineStats:
    scheduler = core.scheduler
    return EngineStats(
        num_running=scheduler.num_running,
        num_waiting=scheduler.num_waiting,
        kv_cache_usage=scheduler.kv_cache_usage,
        num_preemptions=scheduler.num_preemptions,
        prefix_cache_queries=scheduler.num_prefix_query_tokens,
        prefix_cache_hits=scheduler.num_prefix_hit_tokens,
        num_drafts=scheduler.num_drafts,
        num_draft_tokens=scheduler.num_draft_tokens,
        num_accepted_draft_tokens=scheduler.num_accepted_draft_tokens,
    )


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    """Run ``call`` on the event loop; a loop that is closed already needs no news."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)


def _set_result(done: "asyncio.Future[LoadedEngine]", loaded: LoadedEngine) -> None:
    if not done.done():
        done.set_result(loaded)


def _set_exception(done: "asyncio.Future[LoadedEngine]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
