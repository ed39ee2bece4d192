"""Who may call: the checks made on every request before it is routed, and the CORS headers.

Owns the Host allow-list, which stops web pages that point a name of theirs at this machine; the Origin
check, which stops web pages that simply send a request; the key check, which stops everybody else. Knows no
endpoint and no body. Pure ASGI, on the event loop.
"""

import hmac
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openai_api.errors import ApiError, error_response
from openai_api.settings import ServerSettings

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
PUBLIC_PATHS = frozenset({"/", "/health", "/live"})
PREFLIGHT_MAX_AGE_S = 600

# A name, an IPv4 address or an IPv6 address in brackets; any port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?")
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{0,1000}")


class AccessControl:
    """Raises no errors: it answers 403 and 401 itself, as it stands outside of the error handlers."""

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self.app = app
        self.hosts = LOOPBACK_HOSTS | {name.lower() for name in (settings.host, *settings.allowed_hosts)}
        self.origins = frozenset(settings.allowed_origins)
        self.api_keys = tuple(key.encode() for key in settings.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin in self.origins:
            send = _with_cors(send, origin)
        error = self._host_error(headers) or self._origin_error(headers)
        is_preflight = error is None and origin in self.origins and _is_preflight(scope, headers)
        error = error or (None if is_preflight else self._key_error(scope, headers))
        if error is not None:
            await error_response(error)(scope, receive, send)
        elif is_preflight:
            await _preflight_response(headers)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _host_error(self, headers: Headers) -> ApiError | None:
        hosts = headers.getlist("host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match and (match[1] or match[2]).lower() in self.hosts:
            return None
        return ApiError(403, "This server does not answer to that Host header.", code="host_not_allowed")

    def _origin_error(self, headers: Headers) -> ApiError | None:
        own = (f"http://{headers.get('host')}", f"https://{headers.get('host')}")
        origins = headers.getlist("origin")
        if origins:
            allowed = len(origins) == 1 and (origins[0] in own or origins[0] in self.origins)
        else:
            allowed = headers.get("sec-fetch-site") != "cross-site"
        return None if allowed else ApiError(403, "Web pages of that origin may not call.", code="origin_not_allowed")

    def _key_error(self, scope: Scope, headers: Headers) -> ApiError | None:
        if not self.api_keys or scope["path"] in PUBLIC_PATHS:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        presented = key.strip().encode("latin-1")
        # Every key is compared, each in constant time: the time tells nothing about any of them.
        matches = [hmac.compare_digest(presented, each) for each in self.api_keys]
        if scheme.lower() == "bearer" and any(matches):
            return None
        message = "Send one of this server's API keys as 'Authorization: Bearer KEY'."
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


def _preflight_response(headers: Headers) -> Response:
    """Every header may be sent: OpenAI's client for browsers adds a dozen of its own."""
    wanted = headers.get("access-control-request-headers", "")
    allow = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "",
        "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
    }
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
