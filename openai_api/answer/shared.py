"""What chat and text completions share between the parsed request and the response."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

from starlette.requests import Request

from engine.outputs import FinishReason
from openai_api.answer.generation import Chunk, Generation, Usage
from openai_api.answer.models import CompletionTokensDetails, PromptTokensDetails, UsageAnswer
from openai_api.answer.server_sent_events import ChunkWriter, request_deadline, unless_disconnected
from openai_api.app_state import AppState
from openai_api.errors import invalid_value
from openai_api.request.schemas import SamplingFields, StreamOptions


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer and chunk of one request has in common. ``deadline`` is on the event loop's clock."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    deadline: float

    def chunk_writer(self, kind: str, options: StreamOptions | None) -> ChunkWriter:
        """``kind`` is OpenAI's ``object``."""
        envelope = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }
        return ChunkWriter(
            envelope,
            include_usage=bool(options and options.include_usage),
            continuous_usage=bool(options and options.continuous_usage_stats),
        )


def new_head(id_prefix: str, app_state: AppState) -> Head:
    info = app_state.engine.info
    return Head(
        id=f"{id_prefix}-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=info.model_id,
        system_fingerprint=info.system_fingerprint,
        deadline=asyncio.get_running_loop().time() + app_state.settings.request_timeout_s,
    )


def check_stream_options(body: SamplingFields) -> None:
    if body.stream_options is not None and not body.stream:
        raise invalid_value("stream_options", "'stream_options' is only allowed with 'stream': true.")


async def fold(request: Request, generation: Generation, deadline: float) -> Sequence[Chunk]:
    """The whole answer at once; aborted when the client goes away."""

    async def work() -> Sequence[Chunk]:
        async with request_deadline(deadline):
            return await generation.fold()

    return await unless_disconnected(request.receive, work())


class StreamForm(Protocol):
    """How an answer looks as events."""

    @property
    def writer(self) -> ChunkWriter: ...

    def opening(self) -> str:
        """What comes before the first chunk."""

    def write(self, chunk: Chunk) -> str: ...


async def events(generation: Generation, form: StreamForm) -> AsyncGenerator[bytes, None]:
    """The same answer as server-sent events: one piece of bytes for each output of the engine, then the end."""
    opening = form.opening()
    async with aclosing(generation.chunks()) as steps:
        async for chunks in steps:
            yield (opening + "".join(map(form.write, chunks))).encode()
            opening = ""
    yield form.writer.end(generation.usage)


def finish_word(reason: FinishReason | None) -> Literal["stop", "length"] | None:
    match reason:
        case FinishReason.STOP:
            return "stop"
        case FinishReason.LENGTH:
            return "length"
    return None


def usage_answer(usage: Usage) -> UsageAnswer:
    return UsageAnswer(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(
            accepted_prediction_tokens=usage.accepted_prediction_tokens,
            rejected_prediction_tokens=usage.rejected_prediction_tokens,
        ),
    )
