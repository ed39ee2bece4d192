"""One connection: what of it is a request, how large and how slow it may be, and how many there are.

Owns the parsing of requests with uvicorn's HTTP protocol: limits, refusals in the order of the
requests, offers that are declined. Knows no path and no body. One object for each connection, on
the event loop.
"""

import asyncio
import logging
from typing import ClassVar

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from openai_api.errors import ApiError
from openai_api.logs import log_event
from openai_api.settings import ServerSettings
from openai_api.transport import wire_answers
from openai_api.transport.connection_limit import ConnectionLimit
from openai_api.transport.joined_writes import JoinedWrites
from openai_api.transport.read_deadline import ReadDeadline, Wait
from openai_api.transport.request_bytes import RequestBytes

# Of a head: method, version and the line ends around them, which the parser does not hand out.
UNCOUNTED_BYTES = 64
MAX_WAITING_BYTES = 16 * 1024


class GuardedProtocol(HttpToolsProtocol):
    """A *head* is the request line and the headers.

    ``cycle`` is uvicorn's name for a request and its answer; here it is the newest one, which may
    wait for the answers before it.
    """

    settings: ClassVar[ServerSettings]
    limit: ClassVar[ConnectionLimit]
    transport: JoinedWrites

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One connection too many takes the place of the one that has been idle for the longest time."""
        timeout_s = self.settings.write_timeout_s
        super().connection_made(JoinedWrites(transport, loop=self.loop, write_timeout_s=timeout_s))
        self._reads = Wait.FIRST_REQUEST
        self._deadline = ReadDeadline(self.loop, self.settings, on_late=self._on_late)
        self._running: RequestResponseCycle | None = None
        self._head_bytes = 0
        self._bytes = RequestBytes(self)
        self._is_refused = False
        self.limit.opened(self.transport)
        self._is_one_too_many = not self.limit.has_room()
        self._on_change()

    def connection_lost(self, exc: Exception | None) -> None:
        """No deadline outlives its connection; uvicorn tells the newest request, this the running one."""
        self._deadline.wait_for(None)
        self.limit.closed(self.transport)
        self.transport.forget()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    # From bytes to requests.

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if not self._is_refused and not self.transport.is_closing():
            self._bytes.add(data)
            self._parse()

    def _parse(self) -> None:
        """Bytes that end neither a head nor a message and are no body count against
        ``max_header_bytes``.
        """
        if self._is_refused or self.transport.is_closing():
            return
        try:
            self._bytes.parse()
        except httptools.HttpParserError as error:
            cause = error.__context__  # what one of the methods below raised
            self._refuse(cause if isinstance(cause, ApiError) else wire_answers.not_http())
        else:
            if self._bytes.num_overhead > self.settings.max_header_bytes + UNCOUNTED_BYTES:
                self._refuse(wire_answers.head_too_large(self.settings))
        if self.pipeline:
            self._read_in_advance()

    def _read_in_advance(self) -> None:
        """Further requests wait; the client is still read, up to a bound, so that its end is seen."""
        if self._bytes.num_waiting > MAX_WAITING_BYTES:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()

    def on_message_begin(self) -> None:
        """A new head, of 0 bytes so far."""
        super().on_message_begin()
        self._head_bytes = 0
        self._reads = Wait.HEAD
        self._on_change()

    def on_url(self, url: bytes) -> None:
        """A part of the path; its bytes count."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer field, which is dropped: the checks of the headers are over.

        Its bytes count, with the colon and the line break.
        """
        self._count_head(len(name) + len(value) + len(": \r\n"))
        if self._reads is Wait.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request starts, or waits until those before it are answered."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if self.parser.should_upgrade() and method != b"CONNECT":
            return
        wire_answers.check_head(method, version, self.headers)
        self.expect_100_continue = self.expect_100_continue and version != "1.0"
        self._bytes.num_overhead = 0
        self.limit.set_busy(self.transport)
        is_one_too_many = self._is_one_too_many and not self.limit.has_room()
        self.app = wire_answers.probes_only(self.config.loaded_app) if is_one_too_many else self.config.loaded_app
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and not is_one_too_many
        self._reads = Wait.BODY
        self._on_change()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._bytes.num_overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """What follows is the next head."""
        if self.parser.should_upgrade():
            return
        self._bytes.num_overhead = 0
        self._reads = Wait.NEXT_REQUEST
        super().on_message_complete()
        self._on_change()

    def _count_head(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > self.settings.max_header_bytes:
            raise wire_answers.head_too_large(self.settings)

    # Answers, one after the other.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        self.transport.hold_next()
        is_old = cycle.scope["http_version"] == "1.0"
        super()._start_asgi_task(cycle, wire_answers.without_chunks(app, cycle) if is_old else app)

    def on_response_complete(self) -> None:
        """The next request starts, if there is one; what was sent in advance is parsed behind it."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # ``ReadDeadline`` has that, and bytes do not put it off
        self._on_change()
        if self._bytes.num_waiting:
            self.loop.call_soon(self._parse)

    def _refuse(self, error: ApiError) -> None:
        """Answer ``error`` behind all answers that are due, and close; nothing more is read."""
        log_event(logging.WARNING, "request_refused", {"status": error.status, "code": error.code})
        self._is_refused = self.transport.is_sent_to = True
        if self._reads is Wait.BODY and self.cycle.response_started:
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
            return
        if self._reads is Wait.BODY:
            self._withdraw()
        super().on_message_begin()
        self.url = b"/"
        self.app = wire_answers.refusal(error)
        super().on_headers_complete()
        self._on_change()

    def _withdraw(self) -> None:
        """The newest request has turned out to be none; no part of its answer was sent."""
        if self.cycle is self._running:
            self.cycle.disconnected = self.cycle.response_complete = True
            self.cycle.message_event.set()
        elif self._running is not None:
            self.pipeline.popleft()
            self.cycle = self._running

    # Deadlines and numbers.

    def _on_change(self) -> None:
        """To be called whenever what the connection waits for may have changed."""
        self._deadline.wait_for(self._awaited())
        self.transport.is_sent_to = self._is_refused or self._reads is Wait.BODY or bool(self.pipeline)
        if self._is_answering():
            self.limit.set_busy(self.transport)
        else:
            # With an answer before the end of the body there is little use in the rest of it.
            is_over = self._reads is Wait.BODY or self.transport.is_closing()
            self.limit.set_idle(self.transport, is_served=self.cycle is not None and not is_over)

    def _awaited(self) -> Wait | None:
        """Nothing while the client waits for us; it may send its next head in advance."""
        if self._is_refused or self.transport.is_closing():
            return None
        is_body_of_running = self._reads is Wait.BODY and self.cycle is self._running
        return self._reads if is_body_of_running or not self._is_answering() else None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _on_late(self, wait: Wait) -> None:
        """A connection on which nothing came is closed without a word: browsers open some in advance."""
        if wait is Wait.HEAD:
            self._refuse(wire_answers.head_too_slow())
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not take what it is sent."""
        super().pause_writing()
        self.transport.expect_progress()

    def resume_writing(self) -> None:
        """The client takes its answer again."""
        self.transport.made_progress()
        super().resume_writing()


def guarded_protocol(settings: ServerSettings) -> type[GuardedProtocol]:
    """The protocol of one server: uvicorn makes the objects itself, one for each connection."""

    class OfOneServer(GuardedProtocol):
        pass

    OfOneServer.settings = settings
    OfOneServer.limit = ConnectionLimit(settings.max_connections)
    return OfOneServer
