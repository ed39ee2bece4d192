"""The layer around all checks: an id, a clock, one log record and one metric for every request.

Owns also the last net for errors; knows no endpoint. Pure ASGI on the event loop: it adds one
function call to each chunk of a stream.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openai_api.errors import error_response, to_api_error
from openai_api.logs import log_event, where_it_failed
from openai_api.metrics import Metrics
from openai_api.wires import Wire, wire_of

# What a client may choose as the id of its request: anything that is safe in a header and in a log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLIENT_CLOSED_REQUEST = 499  # never sent: what logs and metrics call a request whose client went away
_QUIET_ROUTES = ("/health", "/live", "/metrics")


@dataclass(slots=True)
class Exchange:
    """What is known of one request. Mutable: ``status`` stays 0 until the response starts.

    ``started_s`` is on the clock of ``time.perf_counter``.
    """

    request_id: str
    started_s: float = field(default_factory=time.perf_counter)
    status: int = 0

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the request came."""
        return (time.perf_counter() - self.started_s) * 1000


class RequestContext:
    """Raises nothing but what ends the process: errors that come this far are logged and answered
    with 500. ``on_end`` is called when a request has ended, however it did.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, on_end: Callable[[Scope, Exchange], None] | None = None
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(_request_id(Headers(scope=scope)))
        scope["request_id"] = exchange.request_id
        id_header = "request-id" if wire_of(scope["path"]) is Wire.ANTHROPIC else "x-request-id"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers[id_header] = exchange.request_id
                headers["openai-processing-ms"] = f"{exchange.elapsed_ms:.0f}"
            await send(message)

        self.metrics.http_in_flight.inc()
        try:
            await self._run(scope, receive, send_with_headers, exchange)
        finally:
            self.metrics.http_in_flight.dec()
            self._record(scope, exchange)
            if self.on_end is not None:
                self.on_end(scope, exchange)
            scope.pop("answering", None)  # an idle connection keeps the scope of its last request

    async def _run(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            exchange.status = CLIENT_CLOSED_REQUEST
        except Exception as error:
            log_event(logging.ERROR, "unexpected_error", {"request_id": exchange.request_id, **where_it_failed(error)})
            if exchange.status == 0:
                await error_response(to_api_error(error, retry_after_s=1))(scope, receive, send)

    def _record(self, scope: Scope, exchange: Exchange) -> None:
        # The pattern of the route, not the path: a path is the client's own text.
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.http_requests.labels(scope["method"], route, str(exchange.status)).inc()
        if exchange.status < 500 or exchange.status == 503:
            self.metrics.refused(scope.get("error_code"))
        fields: Mapping[str, object] = {
            "request_id": exchange.request_id,
            "method": scope["method"],
            "route": route,
            "status": exchange.status,
            "duration_ms": round(exchange.elapsed_ms, 1),
        }
        log_event(logging.DEBUG if route in _QUIET_ROUTES else logging.INFO, "request", fields)


def _request_id(headers: Headers) -> str:
    own = headers.get("x-request-id", "")
    return own if _REQUEST_ID.fullmatch(own) else f"req_{uuid.uuid4().hex}"
