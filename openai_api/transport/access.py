"""Who may call: the checks made on every request before it is routed.

Owns their order and the words of each refusal: the Host check stops web pages that point a name of
theirs at this machine, the Origin check web pages that simply send a request, the key check
everybody else. Leaves in the scope who calls, and who owns what is stored. Knows no endpoint and no
body. Pure ASGI, on the event loop.
"""

import hmac
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.caller import Caller
from openai_api.errors import ApiError, error_response
from openai_api.page_files import PAGE_PREFIX
from openai_api.transport.callers import caller_at_address, caller_of_key, owner_of_key
from openai_api.transport.cors import AllowedOrigins, is_preflight, preflight_response
from openai_api.transport.hosts import HostRule
from openai_api.transport.wire_answers import PROBE_PATHS
from openai_api.web_addresses import parse_origin

PUBLIC_PATHS = frozenset({"/", *PROBE_PATHS})

_OTHER_HEADERS = ("x-api-key", "api-key")  # of Anthropic's clients and of Azure's
_BEARER = re.compile(r"bearer[ \t]+(.*)", re.IGNORECASE | re.ASCII)


def is_public(path: str) -> bool:
    """Whether anybody may read ``path``: it tells nothing that is not in the package."""
    return path in PUBLIC_PATHS or path.startswith(PAGE_PREFIX)


class AccessControl:
    """Raises no errors: it answers 403 and 401 itself, as it stands outside of the error handlers."""

    def __init__(self, app: ASGIApp, *, hosts: HostRule, origins: AllowedOrigins, api_keys: Sequence[str]) -> None:
        self.app = app
        self.hosts = hosts
        self.origins = origins
        self.api_keys = tuple(key.encode() for key in api_keys)
        self.callers = tuple(map(caller_of_key, range(len(self.api_keys))))
        self.owners = tuple(map(owner_of_key, self.api_keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(scope, headers)
            self._check_origin(headers)
            if is_preflight(scope, headers) and self.origins.of(headers):
                await preflight_response(headers)(scope, receive, send)
                return
            scope["caller"] = self._caller(scope, headers)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        if scope["path"] in PROBE_PATHS or self.hosts.allows(headers, scope):
            return
        message = (
            "This server does not answer to that Host header. To allow it, start the server with "
            "'--allowed-host NAME', where NAME is the host in the URL."
        )
        raise ApiError(403, message, code="host_not_allowed")

    def _check_origin(self, headers: Headers) -> None:
        if "origin" not in headers:
            is_allowed = headers.get("sec-fetch-site") != "cross-site"
        else:
            is_allowed = _is_own_origin(headers) or self.origins.of(headers) is not None
        if not is_allowed:
            message = (
                "Web pages of that origin may not call. To let them, start the server with '--allowed-origin ORIGIN'."
            )
            raise ApiError(403, message, code="origin_not_allowed")

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        """Whose key it is. Where none is needed, the client's address."""
        if not self.api_keys or is_public(scope["path"]):
            return caller_at_address(scope)
        for presented in (_bearer(headers), *(_bare_key(headers, name) for name in _OTHER_HEADERS)):
            # Every key is compared, each in constant time: the time tells nothing about any of them.
            matches = [hmac.compare_digest(presented, each) for each in self.api_keys]
            if any(matches):
                scope["owner"] = self.owners[matches.index(True)]
                return self.callers[matches.index(True)]
        message = "Send one of this server's API keys as 'Authorization: Bearer KEY' or as 'X-Api-Key: KEY', once."
        raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _bearer(headers: Headers) -> bytes:
    credentials = headers.getlist("authorization")
    match = _BEARER.fullmatch(credentials[0].strip(" \t")) if len(credentials) == 1 else None
    return match[1].encode("latin-1") if match else b""


def _bare_key(headers: Headers, name: str) -> bytes:
    """A key without a scheme: where a proxy has the Authorization header for itself, too."""
    keys = headers.getlist(name)
    return keys[0].strip(" \t").encode("latin-1") if len(keys) == 1 else b""


def _is_own_origin(headers: Headers) -> bool:
    """Whether the page came from this very server, by whichever scheme the client reaches it."""
    origins, host = headers.getlist("origin"), headers.get("host", "")
    origin = parse_origin(origins[0]) if len(origins) == 1 else None
    return origin is not None and origin in (parse_origin(f"http://{host}"), parse_origin(f"https://{host}"))
