"""Server-sent events: how they are framed, how a response of them is sent, and what ends it early.

Event loop. The way of a token is ``ChunkWriter.event`` and ``_EventSender.send``: string formatting, one ASGI message.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import DeadlineError, EngineError
from openai_api.answer.generation import Usage
from openai_api.errors import ApiError, error_body, to_api_error
from openai_api.logs import log_event, where_it_failed
from openai_api.settings import ServerSettings

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

T = TypeVar("T")


def usage_dict(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.accepted_prediction_tokens,
            "rejected_prediction_tokens": usage.rejected_prediction_tokens,
        },
    }


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


class ChunkWriter:
    """Writes the events of one stream. What all of them share is encoded once, here.

    ``include_usage`` adds ``usage: null`` to every chunk and a last chunk with the totals; with ``continuous_usage``
    every chunk has the usage so far.
    """

    def __init__(self, envelope: Mapping[str, object], *, include_usage: bool, continuous_usage: bool) -> None:
        self._head = "data: " + _compact(envelope).removesuffix("}") + ',"choices":['
        self._tail = ',"usage":null}\n\n' if include_usage else "}\n\n"
        self.include_usage = include_usage
        self.continuous_usage = include_usage and continuous_usage

    def event(self, choice: str, usage: Usage, *, extra: str = "") -> str:
        """One chunk around the JSON of one choice; ``extra`` is more members of the chunk, each after a comma."""
        tail = self._usage_tail(usage) if self.continuous_usage else self._tail
        return f"{self._head}{choice}]{extra}{tail}"

    def end(self, usage: Usage) -> bytes:
        totals = f"{self._head}]{self._usage_tail(usage)}" if self.include_usage else ""
        return totals.encode() + DONE

    def _usage_tail(self, usage: Usage) -> str:
        return f',"usage":{_compact(usage_dict(usage))}}}\n\n'


@asynccontextmanager
async def request_deadline(deadline: float) -> AsyncIterator[None]:
    """DeadlineError when the event loop's clock passes ``deadline``."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise DeadlineError("The request ran longer than this server allows.") from None


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client goes away.

    Raises:
        ClientDisconnect: it went away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends ``events`` until they end, the client goes away, or the deadline passes.

    The response starts with the first event, so that an error before it still gets its own status; or with the first
    keep-alive comment, when the request has waited that long.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], *, deadline: float, settings: ServerSettings) -> None:
        super().__init__()
        self.events = events
        self.deadline = deadline
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = _EventSender(send)
        await unless_disconnected(receive, self._send_all(sender))

    async def _send_all(self, sender: "_EventSender") -> None:
        keep_alive = asyncio.ensure_future(sender.keep_alive(self.settings.keep_alive_interval_s))
        try:
            async with request_deadline(self.deadline), aclosing(self.events) as events:
                async for event in events:
                    await sender.send(event)
        except Exception as error:
            if not sender.is_started:
                raise
            await sender.send(_error_event(error, self.settings))
        finally:
            keep_alive.cancel()
        await sender.end()


def _error_event(error: Exception, settings: ServerSettings) -> bytes:
    if not isinstance(error, ApiError | EngineError):
        log_event(logging.ERROR, "unexpected_error", where_it_failed(error))
    return b"data: " + error_body(to_api_error(error, retry_after_s=settings.retry_after_s)) + b"\n\n"


class _EventSender:
    """The sending side of one response. Mutable. The lock keeps a keep-alive out from between start and first event."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self._last_sent_s = self._clock()
        self._lock = asyncio.Lock()
        self.is_started = False

    async def send(self, event: bytes) -> None:
        async with self._lock:
            if not self.is_started:
                self.is_started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            self._last_sent_s = self._clock()
            await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def keep_alive(self, interval_s: float) -> None:
        while True:
            silent_s = self._clock() - self._last_sent_s
            if silent_s >= interval_s:
                await self.send(KEEP_ALIVE)
            else:
                await asyncio.sleep(interval_s - silent_s)
