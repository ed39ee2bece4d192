"""What is said of a path that is none of ours: 404, with the path that was probably meant.

Owns the names under which other servers have the same endpoints, and how much two paths must look
alike. Most such paths come of a base URL without its ``/v1``, or with two of them, so that is named
too. Redirects nothing, which would lose a body, and never quotes the path, which is the client's
own text. Pure but for the handler, which runs on the event loop.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from starlette.requests import Request
from starlette.responses import Response

from openai_api.errors import ApiError, error_response
from openai_api.routing.routes import ROUTES
from openai_api.wires import Wire, wire_of

MAX_PATH_CHARS = 100  # comparing takes time by the square of it
LIKENESS = 0.75  # of 1, by difflib: "chat/completion" is 0.97 like ours, "embeddings" 0.5
NEAR_LIKENESS = 0.95  # a letter too few or too many, which is told before a path of ours within a longer one

# What clients put in front of the paths that they share.
_PREFIXES = frozenset({"v1", "api", "openai"})
_V1 = "/v1"
_CHAT, _COMPLETIONS, _MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
_HEALTH, _DOCUMENT = "/health", "/openapi.json"
_OTHER_NAMES: Mapping[str, str] = {
    "chat": _CHAT,
    **dict.fromkeys(("generate", "completion", "complete"), _COMPLETIONS),
    **dict.fromkeys(("tags", "model"), _MODELS),
    **dict.fromkeys(("healthz", "ready", "readyz", "ping"), _HEALTH),
    **dict.fromkeys(("livez", "alive"), "/live"),
    **dict.fromkeys(("docs", "redoc", "openapi"), _DOCUMENT),
}


def _words(path: str) -> list[str]:
    return [word for word in path.lower().split("/") if word]


def _core(path: str) -> str:
    """What is left of a path without its prefixes: ``chat/completions``."""
    words = _words(path)
    while words and words[0] in _PREFIXES:
        words = words[1:]
    return "/".join(words)


_METHODS = frozenset((route.path, route.method) for route in ROUTES)
_OWN_PATHS = [*(route.path for route in ROUTES if "{" not in route.path and route.path != "/"), _DOCUMENT]
_OWN_NAMES: Mapping[str, str] = {_core(path): path for path in _OWN_PATHS if wire_of(path) is not Wire.OLLAMA}
_NAMES: Mapping[str, str] = {**_OTHER_NAMES, **_OWN_NAMES}
# Whole, as they share their words with OpenAI's paths; so below /api/ they come first.
_OLLAMAS: Mapping[str, str] = {"/".join(_words(path)): path for path in _OWN_PATHS if wire_of(path) is Wire.OLLAMA}


def likely_path(method: str, path: str) -> str | None:
    """The path of ours that was meant by ``path``, if any is like it."""
    if len(path) > MAX_PATH_CHARS:
        return None
    core = _core(path)
    if not core:  # the base URL of a client, which posts to it or lists models
        return _CHAT if method == "POST" else _MODELS
    if (ollamas := _ollamas(path)) is not None:
        return ollamas
    if core in _NAMES:
        return _NAMES[core]
    if close := get_close_matches(core, _NAMES, n=1, cutoff=NEAR_LIKENESS):
        return _NAMES[close[0]]
    # With more around it: deployments/NAME/chat/completions, models/NAME.
    within = [name for name in _OWN_NAMES if f"/{name}/" in f"/{core}/"]
    close = [max(within, key=len)] if within else get_close_matches(core, _NAMES, n=1, cutoff=LIKENESS)
    return _NAMES[close[0]] if close else None


def _ollamas(path: str) -> str | None:
    """Ollama's path that was meant, if any was; a base URL may end in /api, too."""
    words, whole = _words(path), "/".join(_words(path))
    if words[:1] != ["api"] or words[1:2] == ["v1"] or (whole not in _OLLAMAS and _core(path) in _NAMES):
        return None
    close = get_close_matches(whole, _OLLAMAS, n=1, cutoff=LIKENESS)
    return _OLLAMAS[close[0]] if close else None


def _method(asked: str, path: str) -> str:
    """The one that was asked if ``path`` has it, else one that it has."""
    own = sorted((method for own_path, method in _METHODS if own_path == path), reverse=True)
    return asked if asked in own else next(iter(own), "GET")


async def answer_unknown_path(request: Request, _error: Exception) -> Response:
    """404, by the router; other 404s have their own words."""
    path = likely_path(request.method, request.scope["path"])
    hint = f"GET {_DOCUMENT} lists all." if path is None else f"Did you mean {_method(request.method, path)} {path}?"
    if path is None or path.startswith(_V1):
        # As this client reached the server; its Host header has been checked before.
        hint += f" The base URL for clients is {request.url.scheme}://{request.url.netloc}{_V1}."
    return error_response(ApiError(404, f"There is no such endpoint. {hint}", code="unknown_url"))
