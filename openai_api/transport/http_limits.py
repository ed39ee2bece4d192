"""The limits that no ASGI application can see: connections, heads, slow readers and slow writers.

Owns timers and counts around uvicorn's HTTP protocol, and error bodies like everywhere else. Knows
no path and no body. One object for each connection, on the event loop.
"""

import asyncio
import uuid
from typing import ClassVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from openai_api.errors import ApiError, error_response, retry_after
from openai_api.settings import ServerSettings

# After this time beyond the body's deadline the application has had its chance to answer 408.
BODY_GRACE_S = 1.0


class GuardedProtocol(HttpToolsProtocol):
    """A *head* is the request line and the headers.

    Its size is counted as the parser hands its parts out.
    """

    settings: ClassVar[ServerSettings]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is expected within ``header_timeout_s`` seconds."""
        super().connection_made(transport)
        self._is_in_head = True
        self._num_heads = 0
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """No deadline outlives its connection."""
        self._stop_read_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    # Heads: how large, how slow, and on how many connections.

    def data_received(self, data: bytes) -> None:
        """Bytes from the client.

        A head that stays open counts against ``max_header_bytes``, parsed or not.
        """
        was_in_head, num_heads = self._is_in_head, self._num_heads
        if was_in_head and self._read_timer is None:
            self._expect_head()
        super().data_received(data)
        if was_in_head and self._num_heads == num_heads and not self.transport.is_closing():
            # Still the same head, and the parser may keep its bytes to itself: a header without an end.
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self.settings.max_header_bytes:
                self._refuse(_head_too_large(self.settings))

    def on_message_begin(self) -> None:
        """A new head, of 0 bytes so far."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A part of the path; its bytes count."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; its bytes count, with the colon and the line break."""
        self._count_head(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body may take ``body_timeout_s`` seconds from here.

        One connection too many is answered 503.
        """
        self._is_in_head = False
        self._num_heads += 1
        self._stop_read_timer()
        self._read_timer = self.loop.call_later(self.settings.body_timeout_s + BODY_GRACE_S, self.transport.close)
        is_one_too_many = len(self.connections) > self.settings.max_connections
        self.app = _too_many_connections if is_one_too_many else self.config.loaded_app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body has come in time; what follows it is the next head."""
        self._is_in_head = True
        self._unparsed_bytes = 0
        self._stop_read_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for whatever the parser refuses, ``_count_head`` included."""
        if self._head_bytes > self.settings.max_header_bytes:
            self._refuse(_head_too_large(self.settings))
        else:
            self._refuse(ApiError(400, "This is not an HTTP request.", code="invalid_http"))

    # A client that does not take its answer.

    def pause_writing(self) -> None:
        """The client takes nothing: it has ``write_timeout_s`` seconds to go on."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.settings.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client takes its answer again."""
        self._stop_write_timer()
        super().resume_writing()

    def _count_head(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > self.settings.max_header_bytes:
            raise ValueError("head too large")  # ends the parser, which ends in send_400_response

    def _expect_head(self) -> None:
        self._read_timer = self.loop.call_later(self.settings.header_timeout_s, self._head_too_slow)

    def _head_too_slow(self) -> None:
        """A connection on which nothing ever came is closed without a word: browsers open some in
        advance.
        """
        if self._is_answering():
            return  # some clients send an empty line after their request
        if self._unparsed_bytes == 0:
            self.transport.close()
        else:
            self._refuse(ApiError(408, "The request headers did not arrive in time.", code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Answer outside of the application and hang up; into a running answer nothing can be
        written.
        """
        if not self._is_answering():
            response = _closing(error)
            lines = [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
            self.transport.write(STATUS_LINE[error.status] + b"".join(lines) + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def guarded_protocol(settings: ServerSettings) -> type[GuardedProtocol]:
    """A protocol class with ``settings``: uvicorn makes the objects itself, one for each
    connection.
    """

    class WithSettings(GuardedProtocol):
        pass

    WithSettings.settings = settings
    return WithSettings


def _head_too_large(settings: ServerSettings) -> ApiError:
    message = f"The request headers are larger than {settings.max_header_bytes} bytes."
    return ApiError(431, message, code="headers_too_large")


def _closing(error: ApiError) -> Response:
    response = error_response(error)
    response.headers["Connection"] = "close"
    response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
    return response


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError(503, "Too many connections are open.", code="too_many_connections", headers=retry_after(1))
    await _closing(error)(scope, receive, send)
