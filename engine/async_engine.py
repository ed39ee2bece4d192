"""The engine behind an event loop: admission, one queue of news per request, the end.

Owns the event loop's side of every request; ``EngineThread`` steps. How long a request may run is not decided here, only
how long it may wait in the queue. Everything public is called on the event loop, ``render_chat`` and ``tokenizer`` from
any thread.
"""

import asyncio
import time
from collections import abc
from dataclasses import dataclass, field

from engine.caller import ANYBODY, Caller
from engine.engine_info import EngineStats, EngineStatus, ModelInfo
from engine.engine_options import EngineOptions
from engine.engine_thread import Abort, Add, EngineThread, News
from engine.errors import EngineError, EngineNotReadyError, QueueFullError, QueueTimeoutError, StepError
from engine.loading import LoadedEngine, load_engine
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from gemma3.text.chat import ChatPrompt
from gemma3.text.tokenizer import Gemma3Tokenizer

QUEUE_TIMEOUT_S = 60.0


@dataclass(slots=True)
class _Client:
    """The event loop's end of a request. Mutable."""

    news: "asyncio.Queue[News]" = field(default_factory=asyncio.Queue)
    is_started: bool = False


class AsyncLLMEngine:
    """``load`` makes the engine; it runs on the engine thread."""

    def __init__(
        self,
        load: abc.Callable[[], LoadedEngine],
        *,
        max_num_waiting: int = 1_024,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
    ) -> None:
        self.status = EngineStatus.LOADING
        self._max_num_waiting = max_num_waiting
        self._queue_timeout_s = queue_timeout_s
        self._thread = EngineThread(load, deliver=self._deliver, die=self._die)
        self._loaded: LoadedEngine | None = None
        self._stats = EngineStats()
        self._clients: dict[str, _Client] = {}
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
        self, messages: abc.Sequence[tuple[str, str]], *, add_generation_prompt: bool, continue_final_message: bool
    ) -> ChatPrompt:
        """Messages as token ids; ``RequestError`` with ``param="messages"`` if they cannot be a prompt."""
        return self._ready().render_chat(
            messages, add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message
        )

    async def start(self) -> None:
        """Load and become ready; raises what loading raises. The event loop stays free meanwhile."""
        try:
            self._loaded = await self._thread.start()
        except Exception:
            self.status = EngineStatus.DEAD
            raise
        if self.status is EngineStatus.LOADING:
            self.status = EngineStatus.READY

    def check_admission(self, caller: Caller = ANYBODY) -> None:
        """Whether a request would be taken now.

        Raises:
            EngineNotReadyError, QueueFullError.
        """
        self.status.check_ready()
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
        prompt_token_ids: abc.Sequence[int],
        params: SamplingParams,
        *,
        prediction_token_ids: abc.Sequence[int] = (),
        caller: Caller = ANYBODY,
    ) -> abc.AsyncGenerator[RequestOutput, None]:
        """Outputs until the request has finished. Closing the generator early aborts the request.

        The first output comes when the request leaves the queue; it may have no deltas yet. Where the output is as
        predicted it comes faster; what it is does not depend on the prediction.

        Raises:
            RequestError: the request cannot be served as it is.
            EngineNotReadyError, QueueFullError, QueueTimeoutError, StepError.
        """
        self.check_admission(caller)
        client = self._clients[request_id] = _Client()
        self._thread.send(Add(request_id, tuple(prompt_token_ids), params, tuple(prediction_token_ids)))
        began_s, is_finished = time.monotonic(), False
        try:
            news = await self._first_news(client)
            while True:
                if isinstance(news, EngineError):
                    raise news
                is_finished = news.finished
                yield news
                if is_finished:
                    return
                news = await client.news.get()
        finally:
            del self._clients[request_id]
            if is_finished:
                self._mean_request_s += 0.1 * (time.monotonic() - began_s - self._mean_request_s)
            else:
                self._thread.send(Abort(request_id))

    async def _first_news(self, client: _Client) -> News:
        """It ends the time in the queue."""
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                return await client.news.get()
        except TimeoutError:
            raise QueueTimeoutError(f"No place became free within {self._queue_timeout_s:.0f} s.") from None

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
        self._thread.stop()
        if self._loaded is not None:
            await self._thread.join()

    def _deliver(self, news: list[tuple[str, News]], stats: EngineStats) -> None:
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
