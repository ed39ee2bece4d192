"""Streams of events: how a response of them is sent, and what ends it early.

Owns keep-alives, the deadline and the disconnect; knows nothing of what is in an event, which a
``Writer`` writes. Runs on the event loop. The way of a token here is ``Writer.events`` and
``_EventSender.send``: string formatting, one ASGI message.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import DeadlineError, EngineError
from openai_api.answer.chunks import Chunk, num_values
from openai_api.answer.generation import Generation, Usage
from openai_api.answer.writer import Writer
from openai_api.app_state import AppState
from openai_api.disconnects import unless_disconnected
from openai_api.errors import ApiError, to_api_error
from openai_api.logs import log_event, where_it_failed
from openai_api.settings import ServerSettings

# No step of the model gives a choice so many tokens.
_MANY_TOKENS = 64
# A transport copies what a client does not take at once.
_MAX_MESSAGE_BYTES = 256 * 1024
# A comment without a blank line behind it, which stands before the next event: some clients, older
# ones in Go among them, take a blank line for the end of an event and fail on one without data.
KEEP_ALIVE = b": keep-alive\n"


@dataclass(frozen=True, slots=True)
class Framing:
    """How the events of one API are sent.

    Attributes:
        media_type: of the response.
        keep_alive: what is sent into a long silence, where the form has something that means
            nothing; empty: nothing is.
    """

    media_type: bytes
    keep_alive: bytes = b""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Of the response; the last is nginx's."""
        return [(b"content-type", self.media_type), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


SERVER_SENT_EVENTS = Framing(b"text/event-stream", KEEP_ALIVE)


@asynccontextmanager
async def request_deadline(deadline_s: float) -> AsyncIterator[None]:
    """Bound what is done inside; ``deadline_s`` is on the event loop's clock.

    Raises:
        DeadlineError: it was not done in time.
    """
    try:
        async with asyncio.timeout_at(deadline_s):
            yield
    except TimeoutError:
        raise DeadlineError("The request ran longer than this server allows.") from None


class EventStream(Response):
    """Sends a generation as events until it ends, the client goes away, or the deadline passes.

    The response starts with the first event, so that an error before it still gets its own status;
    or with the first keep-alive comment, when the request has waited that long. After the start an
    error is the last event.
    """

    def __init__(
        self,
        generation: Generation,
        writer: Writer,
        *,
        framing: Framing,
        finish: Callable[[Sequence[Chunk], Usage], Awaitable[None]],
        deadline_s: float,
        app_state: AppState,
    ) -> None:
        """``finish`` is awaited behind the last chunk, before the end is told."""
        super().__init__()
        self._finish = finish
        self._framing = framing
        self._generation = generation
        self._writer = writer
        self._deadline_s = deadline_s
        self._settings = app_state.settings
        self._off_loop = app_state.off_loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = _EventSender(send, self._framing)
        await unless_disconnected(receive, self._send_all(sender))

    async def _send_all(self, sender: "_EventSender") -> None:
        keep_alive = asyncio.ensure_future(sender.keep_alive(self._settings.keep_alive_interval_s))
        try:
            async with request_deadline(self._deadline_s):
                last = await self._send_events(sender)
        except Exception as error:
            if not sender.is_started:
                raise
            last = self._writer.error(_told(error, self._settings)).encode("utf-8", "replace")
        finally:
            keep_alive.cancel()
        await sender.send(last, is_last=True)

    async def _send_events(self, sender: "_EventSender") -> bytes:
        """Send one piece of bytes for each output of the engine; the result is the end of them."""
        writer, usage = self._writer, self._generation.usage
        opening = writer.opening(usage)
        async with aclosing(self._generation.chunks()) as steps:
            async for chunks in steps:
                if self._generation.job.echo and any(len(chunk.token_ids) > _MANY_TOKENS for chunk in chunks):
                    await sender.send(opening.encode() + await self._long_echo(chunks))
                elif events := opening + writer.events(chunks, usage):
                    await sender.send(events.encode())
                opening = ""
        await self._finish((), usage)
        return writer.end(usage).encode()

    async def _long_echo(self, chunks: Sequence[Chunk]) -> bytes:
        """There may be 20 log probabilities for each token of the prompt."""
        writer, usage = self._writer, self._generation.usage
        return await self._off_loop.run(num_values(chunks), lambda: writer.events(chunks, usage).encode())


def _told(error: Exception, settings: ServerSettings) -> ApiError:
    if not isinstance(error, ApiError | EngineError):
        log_event(logging.ERROR, "unexpected_error", where_it_failed(error))
    return to_api_error(error, retry_after_s=settings.retry_after_s)


class _EventSender:
    """The sending side of one response.

    Mutable. The lock keeps a keep-alive out from between start and first event.
    """

    def __init__(self, send: Send, framing: Framing) -> None:
        self._send = send
        self._framing = framing
        self._clock = asyncio.get_running_loop().time
        self._last_sent_s = self._clock()
        self._lock = asyncio.Lock()
        self.is_started = False

    async def send(self, event: bytes, *, is_last: bool = False) -> None:
        """Send the bytes of one or more events, behind the head of the response if these are the
        first; it ends with the last ones.
        """
        async with self._lock:
            if not self.is_started:
                self.is_started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": self._framing.headers})
            self._last_sent_s = self._clock()
            for at in range(0, len(event), _MAX_MESSAGE_BYTES):
                end = at + _MAX_MESSAGE_BYTES
                more_body = not is_last or end < len(event)
                await self._send({"type": "http.response.body", "body": event[at:end], "more_body": more_body})

    async def keep_alive(self, interval_s: float) -> None:
        """The framing's word after each ``interval_s`` seconds of silence, until cancelled."""
        while self._framing.keep_alive:
            silent_s = self._clock() - self._last_sent_s
            if silent_s >= interval_s:
                await self.send(self._framing.keep_alive)
            else:
                await asyncio.sleep(interval_s - silent_s)
