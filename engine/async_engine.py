"""The engine behind an event loop: admission, one queue of news per request, the end.

Owns the way of a request from arrival to end; ``EngineThread`` steps, and ``EngineLife`` has a new one
when it dies, with which its requests end. How long a request may run is not decided here, only how
long it may wait in the queue. Everything public is called on the event loop, ``render_chat`` and
``tokenizer`` from any thread.
"""

import asyncio
import time
from collections import abc
from contextlib import aclosing

from engine.admission import Amount
from engine.caller import ANYBODY, Caller
from engine.clients import Client, Clients
from engine.commands import Abort, Add
from engine.engine_info import EngineStats, EngineStatus, ModelInfo
from engine.engine_life import EngineLife
from engine.engine_options import MAX_NUM_WAITING, MAX_WAITING_PROMPT_TOKENS, EngineOptions
from engine.errors import EngineError, EngineNotReadyError, QueueTimeoutError, RequestError, StepError
from engine.grammar.compiler import Grammar
from engine.grammar.spec import GrammarSpec
from engine.loading import LoadedEngine, load_engine
from engine.news_queue import News
from engine.outputs import ContinuationScores, RequestOutput
from engine.request_status import RequestStatus
from engine.request_watch import RequestWatch
from engine.sampling_params import SamplingParams
from engine.scoring import SCORING
from gemma3.progress import Progress, no_progress
from gemma3.text.chat import ChatPrompt, Message
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.tool_form import ToolForm, Tools

QUEUE_TIMEOUT_S = 60.0


class AsyncLLMEngine:
    """``load`` makes the engine; it runs on the engine thread, and again if that dies."""

    def __init__(
        self,
        load: abc.Callable[[], LoadedEngine],
        *,
        max_num_waiting: int = MAX_NUM_WAITING,
        max_waiting_prompt_tokens: int = MAX_WAITING_PROMPT_TOKENS,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
    ) -> None:
        self._life = EngineLife(load, deliver=self._deliver, on_death=self._end_with_thread)
        self._queue_timeout_s = queue_timeout_s
        self._stats = EngineStats()
        self._stats_of_the_dead = EngineStats()
        self._clients = Clients(Amount(max_num_waiting, max_waiting_prompt_tokens))
        self._watch = RequestWatch()
        self._mean_request_s = 1.0

    @classmethod
    def from_options(cls, options: EngineOptions, *, progress: Progress = no_progress) -> "AsyncLLMEngine":
        """``progress`` is told on the engine thread, and anew when the engine is loaded again."""
        return cls(
            lambda: load_engine(options, progress=progress),
            max_num_waiting=options.max_num_waiting,
            max_waiting_prompt_tokens=options.max_waiting_prompt_tokens,
        )

    @property
    def status(self) -> EngineStatus:
        return self._life.status

    @property
    def info(self) -> ModelInfo:
        return self._life.ready().info

    @property
    def tokenizer(self) -> Gemma3Tokenizer:
        return self._life.ready().tokenizer

    def stats(self) -> EngineStats:
        return self._stats.after(self._stats_of_the_dead)

    async def request_statuses(self) -> list[RequestStatus]:
        """What each request does now, oldest first. The engine thread is only asked if there are any."""
        running = await self._watch.look(self._life.send) if self._clients else ()
        return self._clients.statuses(running)

    @property
    def tool_form(self) -> ToolForm:
        return self._life.ready().tool_form

    def render_chat(
        self,
        messages: abc.Sequence[Message],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: Tools | None = None,
    ) -> ChatPrompt:
        """Messages as token ids; ``RequestError`` with ``param="messages"`` if they cannot be a
        prompt.
        """
        return self._life.ready().render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
        )

    async def start(self) -> None:
        """Load and become ready; raises what loading raises. The event loop stays free meanwhile."""
        await self._life.start()

    def compile_grammar(self, spec: GrammarSpec) -> Grammar:
        """What an answer must be, for ``SamplingParams.grammar``. Any thread; not on the event loop.

        Raises:
            GrammarError: it is too large, not supported, or can have no answer.
        """
        return self._life.ready().grammars.compile(spec)

    async def failed(self) -> None:
        """Return when only a new process helps: the engine has died too often, or cannot be loaded
        again.
        """
        await self._life.failed()

    def check_admission(self, caller: Caller = ANYBODY) -> None:
        """Whether a request would be taken now.

        Raises:
            EngineNotReadyError, QueueFullError.
        """
        self.status.check_ready()
        self._clients.room.check(caller.name, mean_request_s=self._mean_request_s)

    def generate(
        self,
        request_id: str,
        prompt_token_ids: abc.Sequence[int],
        params: SamplingParams,
        *,
        prediction_token_ids: abc.Sequence[int] = (),
        caller: Caller = ANYBODY,
        is_further_prompt: bool = False,
        is_streamed: bool = True,
    ) -> abc.AsyncGenerator[RequestOutput, None]:
        """Outputs until the request has finished. Closing the generator early aborts the request.

        The first output comes when the request leaves the queue; it may have no deltas yet. Where
        the output is as predicted it comes faster; what it is does not depend on the prediction. A
        further prompt of a list is not refused for what waits: the first one was let in for all of
        them. Where it is not streamed, outputs behind the first tokens come joined, those of many
        steps at once.

        Raises:
            RequestError: the request cannot be served as it is.
            EngineNotReadyError, QueueFullError, QueueTimeoutError, StepError.
        """
        command = Add(
            request_id,
            tuple(prompt_token_ids),
            params,
            tuple(prediction_token_ids),
            caller,
            is_streamed=is_streamed,
        )
        return self._serve(command, is_further_prompt=is_further_prompt)

    async def score(
        self,
        request_id: str,
        prompt_token_ids: abc.Sequence[int],
        continuations: abc.Sequence[abc.Sequence[int]],
        *,
        caller: Caller = ANYBODY,
        is_further_prompt: bool = False,
    ) -> ContinuationScores:
        """How likely the model holds each of ``continuations`` after the prompt; cancelled, it is aborted.

        Raises:
            RequestError, EngineNotReadyError, QueueFullError, QueueTimeoutError, StepError: as ``generate``.
        """
        if not continuations:
            raise RequestError("There are no continuations to score.", param="continuations")
        plain = tuple([tuple(tokens) for tokens in continuations])
        command = Add(request_id, tuple(prompt_token_ids), SCORING, (), caller, plain)
        async with aclosing(self._serve(command, is_further_prompt=is_further_prompt)) as outputs:
            last = [output async for output in outputs][-1]
        return ContinuationScores(last.scores, last.num_cached_tokens)

    async def _serve(self, command: Add, *, is_further_prompt: bool) -> abc.AsyncGenerator[RequestOutput, None]:
        request_id, caller = command.request_id, command.caller
        if is_further_prompt:
            self.status.check_ready()
        else:
            self.check_admission(caller)
        client = self._clients.enter(command)
        self._life.send(command)
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
            self._clients.leave(request_id)
            if is_finished:
                self._mean_request_s += 0.1 * (time.monotonic() - began_s - self._mean_request_s)
            else:
                self._life.send(Abort(request_id))

    async def _first_news(self, client: Client) -> News:
        """It ends the time in the queue."""
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                return await client.news.get()
        except TimeoutError:
            raise QueueTimeoutError(f"No place became free within {self._queue_timeout_s:.0f} s.") from None

    async def drain(self, timeout_s: float) -> None:
        """Take no more requests and return when none is left. At the deadline the rest get
        ``EngineNotReadyError``.
        """
        self._life.status = EngineStatus.DRAINING
        deadline_s = time.monotonic() + timeout_s
        while self._clients and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        self._clients.end_all(EngineNotReadyError, "The server is shutting down.")

    async def shutdown(self) -> None:
        """End the engine thread. One that is still loading is left to the end of the process."""
        await self._life.shutdown()

    def _deliver(self, news: list[tuple[str, News]], stats: EngineStats) -> None:
        """One step's news, on the event loop."""
        self._stats = stats
        self._clients.deliver(news)

    def _end_with_thread(self) -> None:
        """The engine thread has ended by itself."""
        self._clients.end_all(StepError, "The engine has failed, and with it this request.")
        self._stats_of_the_dead = self.stats().ended()
        self._stats = EngineStats()
