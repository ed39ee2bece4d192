"""Cross-origin requests: which web pages may call, and the headers that let them read an answer.

Owns the allow-list of origins, the answer to a preflight and the CORS headers, which go on errors
too: a page that cannot read its 401 sees a network failure. Pure ASGI, the outermost layer; it
refuses nothing, ``access`` does. On the event loop.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openai_api.web_addresses import ANY_PORT, parse_allowed_origin, parse_origin

PREFLIGHT_MAX_AGE_S = 600

_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{0,1000}")


class AllowedOrigins:
    """Exact origins, and hosts of which every port may call: ``http://localhost:*``. Immutable."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Raises: ValueError, a text is no origin; the command line has checked its own."""
        self._origins = frozenset(map(parse_allowed_origin, origins))
        if None in self._origins:
            raise ValueError("allowed_origins are exact, such as https://app.example or http://localhost:*")

    def of(self, headers: Headers) -> str | None:
        """The request's one Origin header as it is written, if it may call."""
        texts = headers.getlist("origin") if self._origins else []
        origin = parse_origin(texts[0]) if len(texts) == 1 else None
        if origin is None:
            return None
        return texts[0] if {origin, replace(origin, port=ANY_PORT)} & self._origins else None


class CorsHeaders:
    """Lets pages of allowed origins read whatever the app answers. Raises nothing of its own."""

    def __init__(self, app: ASGIApp, *, origins: AllowedOrigins) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = self.origins.of(Headers(scope=scope)) if scope["type"] == "http" else None
        await self.app(scope, receive, send if origin is None else _with_cors(send, origin))


def is_preflight(scope: Scope, headers: Headers) -> bool:
    """Whether a browser asks if it may send a request, which it does without a key."""
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


def preflight_response(headers: Headers) -> Response:
    """204. Every header may be sent: OpenAI's client for browsers adds a dozen of its own."""
    wanted = headers.get("access-control-request-headers", "")
    allow = {
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "",
        "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
    }
    # Chrome asks before a public page may reach into a private network, loopback included.
    if headers.get("access-control-request-private-network") == "true":
        allow["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=allow)


def _with_cors(send: Send, origin: str) -> Send:
    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = "x-request-id, openai-processing-ms, retry-after"
            headers.add_vary_header("Origin")
        await send(message)

    return send_with_cors
