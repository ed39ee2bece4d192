"""One request's run through the engine, as one async generator of chunks.

Owns the order of choices, the counts of tokens and the timing metrics; knows nothing of JSON. A
streaming answer sends the chunks as they come; a non-streaming answer folds the very same
generator. Closing the generator (or cancelling the task that iterates it) aborts the request in the
engine. Event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from engine.caller import Caller
from engine.errors import EngineNotReadyError, QueueFullError, RequestError
from engine.outputs import FinishReason, RequestOutput
from engine.sampling_params import SamplingParams
from openai_api.answer.chunks import Chunk, joined, with_top
from openai_api.engine_api import Engine
from openai_api.metrics import Metrics, RequestTimer, Totals
from openai_api.request.tools import CallPlan


@dataclass(frozen=True, slots=True)
class Echo:
    """The text of a prompt that stands in front of its choices.

    ``hides_first``: the first token, a ``<bos>`` that the server put there, is no part of it.
    """

    text: str
    hides_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be generated: ``params.n`` choices for each prompt.

    Attributes:
        prompts: token ids.
        echo: of each prompt if it shall stand in front of its choices, else empty.
        num_echo_logprobs: alternatives beside each token of the echo; ``None``: no log probabilities.
        num_prompt_logprobs: the same for ``Chunk.prompt_logprobs``.
        prediction: token ids that the output is believed to be; it only makes the request faster.
        calls: how the answer may call tools; ``None``: it is text.
    """

    request_id: str
    prompts: tuple[Sequence[int], ...]
    params: SamplingParams
    echo: tuple[Echo, ...] = ()
    num_echo_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    prediction: Sequence[int] = ()
    calls: CallPlan | None = None

    @property
    def num_choices(self) -> int:
        """Choices of all prompts."""
        return len(self.prompts) * self.params.n

    @property
    def request_ids(self) -> list[str]:
        """The engine's id for each prompt: ``ID``, or ``ID-0``, ``ID-1`` and so on for several."""
        several = len(self.prompts) > 1
        return [f"{self.request_id}-{i}" if several else self.request_id for i in range(len(self.prompts))]


@dataclass(slots=True)
class Usage:
    """Counts of tokens, and the clock of the request. Mutable: grows while the request runs."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    timer: RequestTimer | None = None


class Generation:
    """Mutable, for one use: iterate ``chunks`` once, or await ``fold`` once.

    ``usage`` counts what has come so far, and has its clock from its start on.
    """

    def __init__(self, job: Job, *, caller: Caller, engine: Engine, metrics: Metrics) -> None:
        self.job = job
        self._caller = caller
        self.usage = Usage(prompt_tokens=sum(map(len, job.prompts)))
        self._engine = engine
        self._room = max(0, engine.info.max_model_len - max(map(len, job.prompts)))
        self._metrics = metrics
        self._prompt_indices = {request_id: index for index, request_id in enumerate(job.request_ids)}
        self._finish_reasons: list[str] = []
        self._begun: set[int] = set()

    async def chunks(self, *, is_streamed: bool = True) -> AsyncGenerator[list[Chunk], None]:
        """The news of each engine output as a list, never empty; if not streamed, of many at once.

        Closing the generator aborts the request.

        Raises:
            EngineError: what the engine raises, or a stop from its side.
        """
        timer = self.usage.timer = RequestTimer(self._metrics)
        outcome, is_refused = "abort", False
        try:
            async with aclosing(self._outputs(is_streamed=is_streamed)) as outputs:
                async for output in outputs:
                    timer.output(output)
                    if output.deltas:
                        yield self._take(output)
        except (RequestError, QueueFullError):
            is_refused = True  # before anything of it ran: the rejections count it
            raise
        except Exception:
            outcome = "error"
            raise
        finally:
            if not is_refused:
                unfinished = [outcome] * (self.job.num_choices - len(self._finish_reasons))
                timer.finish(self._totals(self._finish_reasons + unfinished))

    def _totals(self, reasons: Sequence[str]) -> Totals:
        params = self.job.params
        return Totals(
            prompt_tokens=self.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens,
            n=params.n,
            max_tokens=self._room if params.max_tokens is None else params.max_tokens,
            reasons=reasons,
        )

    async def fold(self) -> list[Chunk]:
        """The whole answer: one chunk for each choice, equal to all of its chunks joined.

        Raises:
            EngineError: as ``chunks``.
        """
        parts: list[list[Chunk]] = [[] for _ in range(self.job.num_choices)]
        async with aclosing(self.chunks(is_streamed=False)) as steps:
            async for chunks in steps:
                for chunk in chunks:
                    parts[chunk.choice].append(chunk)
        return [joined(chunks) for chunks in parts]

    def _outputs(self, *, is_streamed: bool) -> AsyncGenerator[RequestOutput, None]:
        """The engine's outputs for all prompts.

        Each token passes as few generators as can be: one prompt needs no merge.
        """
        streams = [
            self._engine.generate(
                request_id,
                token_ids,
                self.job.params,
                prediction_token_ids=self.job.prediction,
                caller=self._caller,
                is_further_prompt=index > 0,
                is_streamed=is_streamed,
            )
            for (request_id, index), token_ids in zip(self._prompt_indices.items(), self.job.prompts, strict=True)
        ]
        return streams[0] if len(streams) == 1 else _merge(streams)

    def _take(self, output: RequestOutput) -> list[Chunk]:
        prompt_index = self._prompt_indices[output.request_id]
        first_choice = prompt_index * self.job.params.n
        chunks = self._begin(prompt_index, output)
        for delta in output.deltas:
            if delta.finish_reason is FinishReason.ABORT:
                raise EngineNotReadyError("The server has stopped this request.")
            if delta.finish_reason is not None:
                self._finish_reasons.append(delta.finish_reason.value)
            self.usage.completion_tokens += len(delta.token_ids)
            self.usage.accepted_prediction_tokens += delta.num_accepted_predictions
            self.usage.rejected_prediction_tokens += delta.num_rejected_predictions
            choice = first_choice + delta.index
            text, token_ids, ended = delta.text, delta.token_ids, delta.finish_reason
            chunks.append(Chunk(choice, text, token_ids, delta.logprobs, ended, stop_reason=delta.stop_reason))
        return chunks

    def _begin(self, prompt_index: int, output: RequestOutput) -> list[Chunk]:
        """On a prompt's first output with deltas: what is said once per prompt."""
        if prompt_index in self._begun:
            return []
        self._begun.add(prompt_index)
        self.usage.cached_tokens += output.num_cached_tokens
        job, n = self.job, self.job.params.n
        told = with_top(output.prompt_logprobs, job.num_prompt_logprobs)
        choices = range(prompt_index * n, (prompt_index + 1) * n)
        if job.echo:
            token_ids, text = tuple(job.prompts[prompt_index]), job.echo[prompt_index].text
            logprobs = with_top(output.prompt_logprobs, job.num_echo_logprobs)
            return [Chunk(choice, text, token_ids, logprobs, prompt_logprobs=told) for choice in choices]
        return [] if told is None else [Chunk(choice, "", (), prompt_logprobs=told) for choice in choices]


async def _merge(streams: Sequence[AsyncGenerator[RequestOutput, None]]) -> AsyncGenerator[RequestOutput, None]:
    """The outputs of all streams as they come. Closes all streams in the end."""
    waiting = {asyncio.ensure_future(anext(stream, None)): stream for stream in streams}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream, output = waiting.pop(task), task.result()
                if output is not None:  # else this stream has ended
                    waiting[asyncio.ensure_future(anext(stream, None))] = stream
                    yield output
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
