"""What is answered without the application, and to clients of HTTP/1.0.

Owns the errors of what cannot be a request, and how an answer without chunks is sent. Pure ASGI on
the event loop; knows no endpoint but the two probes, which answer also when nothing else does.
"""

import uuid
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from uvicorn._types import Scope as UvicornScope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from openai_api.errors import ApiError, error_response, retry_after
from openai_api.settings import ServerSettings

# A probe comes with whatever address it was given, or by HTTP/1.0 without a Host; it learns nothing.
PROBE_PATHS = frozenset({"/health", "/live"})


def not_http() -> ApiError:
    """400 for what no parser of HTTP/1.1 takes."""
    return ApiError(400, "This is not an HTTP request.", code="invalid_http")


def head_too_large(settings: ServerSettings) -> ApiError:
    """431; trailer fields and what surrounds chunks count as well."""
    message = f"The request headers are larger than {settings.max_header_bytes} bytes."
    return ApiError(431, message, code="headers_too_large")


def head_too_slow() -> ApiError:
    """408 for a head that was begun."""
    return ApiError(408, "The request headers did not arrive in time.", code="request_timeout")


def check_head(method: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises ``ApiError`` for what the parser takes and this server does not."""
    if method == b"CONNECT":
        allow = {"Allow": "GET, HEAD, POST"}
        raise ApiError(405, "This server is no proxy.", code="method_not_allowed", headers=allow)
    if version not in ("1.0", "1.1"):
        raise ApiError(400, "This server speaks HTTP/1.1 and HTTP/1.0.", code="invalid_http")
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        message = "The Transfer-Encoding must be chunked, or left out; in HTTP/1.0 there is none."
        raise ApiError(400, message, code="invalid_http")


def refusal(error: ApiError) -> ASGIApp:
    """An application that answers ``error`` and closes the connection."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(error)
        response.headers["Connection"] = "close"
        response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
        await response(scope, receive, send)

    return refuse


def probes_only(app: ASGIApp) -> ASGIApp:
    """``app`` for the probes; 503 for every other request, which is one connection too many."""
    error = ApiError(503, "Too many connections are open.", code="too_many_connections", headers=retry_after(1))
    refuse = refusal(error)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["path"] in PROBE_PATHS else refuse)(scope, receive, send)

    return answer


def without_chunks(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """``app`` for a client of HTTP/1.0: a body without a length ends with the connection."""

    async def answer(scope: UvicornScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        has_length = True

        async def send_plain(message: ASGISendEvent) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                cycle.chunked_encoding = None if has_length else False
            elif message["type"] == "http.response.body" and not has_length:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plain)

    return answer
