"""Which exception becomes which HTTP status and error body.

Owns the only place where error bodies are made, in the form of the API that a path belongs to;
knows no endpoint. A body never quotes a prompt, a
path, a traceback or the text of a library: messages are written here, in ``request`` or in the
engine's own exceptions. Pure, so any thread may call it.
"""

import json
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import (
    DeadlineError,
    EngineError,
    EngineNotReadyError,
    QueueFullError,
    QueueTimeoutError,
    RequestError,
    StepError,
)
from engine.sampling_params import SamplingParamsError
from openai_api.wires import Wire, wire_of

# With the name of a parameter this keeps a body below 4 KiB even if every character needs six bytes.
MAX_MESSAGE_CHARS = 500
MAX_PARAM_CHARS = 64

TYPE_BY_STATUS: Mapping[int, str] = {403: "permission_error", 429: "rate_limit_error"}
ANTHROPIC_TYPE_BY_STATUS: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
NO_RETRY = {"x-should-retry": "false"}
STATUS_BY_ERROR: Mapping[type[Exception], tuple[int, str]] = {
    QueueFullError: (429, "queue_full"),
    QueueTimeoutError: (503, "queue_timeout"),
    EngineNotReadyError: (503, "not_ready"),
    DeadlineError: (504, "deadline_exceeded"),
    StepError: (500, "step_failed"),
}


class ApiError(Exception):
    """An answer of status 400 to 504 with an error body. ``headers`` go beside the usual ones."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """OpenAI's word for the kind of the error, from the status: 4xx is the client's doing, 5xx
        the server's.
        """
        return TYPE_BY_STATUS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")


def invalid_value(param: str | None, message: str) -> ApiError:
    """A 400 for a field that is wrong; ``param`` names it, ``None`` for the whole body."""
    return ApiError(400, message, code="invalid_value", param=param)


def retry_after(seconds: int) -> dict[str, str]:
    """OpenAI's clients obey 1 to 120 seconds and ignore anything else."""
    return {"Retry-After": str(min(max(seconds, 1), 120))}


def error_body(error: ApiError, wire: Wire = Wire.OPENAI, *, request_id: str | None = None) -> bytes:
    """The error object of ``wire`` as JSON in UTF-8, below 4,096 bytes whatever is in ``error``;
    ``request_id`` is for those that have it there.
    """
    message = error.message[:MAX_MESSAGE_CHARS]
    match wire:
        case Wire.OPENAI:
            param = None if error.param is None else error.param[:MAX_PARAM_CHARS]
            body: object = {"error": {"message": message, "type": error.type, "param": param, "code": error.code}}
        case Wire.ANTHROPIC:
            kind, told = _anthropic_type(error.status), _with_param(message, error.param)
            detailed = {"type": kind, "message": told, "details": {"error_code": error.code}}
            body = {"type": "error", "error": detailed, "request_id": request_id}
        case Wire.OLLAMA:
            body = {"error": message}
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _with_param(message: str, param: str | None) -> str:
    """Where an error has no member for it, the field stands in front, unless the words name it."""
    name = (param or "")[:MAX_PARAM_CHARS]
    return message if name in message else f"{name}: {message}"


def _anthropic_type(status: int) -> str:
    return ANTHROPIC_TYPE_BY_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")


class ErrorResponse(Response):
    """The response to ``error``, with its status and headers and a body below 4,096 bytes, in the
    form of the path that was asked.

    It leaves the error's code in the scope of its request, for those who count.
    """

    def __init__(self, error: ApiError) -> None:
        super().__init__(error_body(error), error.status, headers=error.headers, media_type="application/json")
        self.error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["error_code"] = self.error.code
        self.body = error_body(self.error, wire_of(scope["path"]), request_id=scope.get("request_id"))
        self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def error_response(error: ApiError) -> Response:
    """What answers a request with ``error``."""
    return ErrorResponse(error)


def to_api_error(error: Exception, *, retry_after_s: int) -> ApiError:
    """The answer to any exception; what is not known to be the client's doing is a 500 that says
    nothing more.
    """
    match error:
        case ApiError():
            return error
        case HTTPException():
            return _routing_error(error)
        case SamplingParamsError():
            return invalid_value(error.param, str(error))
        case RequestError():
            return ApiError(400, str(error), code=error.code, param=error.param)
    status, code = STATUS_BY_ERROR.get(type(error), (500, "internal_error"))
    message = "The server failed on this request." if status == 500 else str(error)
    wait_s = error.retry_after_s if isinstance(error, QueueFullError) else retry_after_s
    # Asked again, a request would fail or run into its deadline again.
    return ApiError(status, message, code=code, headers=retry_after(wait_s) if status in {429, 503} else NO_RETRY)


def _routing_error(error: HTTPException) -> ApiError:
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        message = f"This endpoint does not have that method; it has {allowed}."
        return ApiError(405, message, code="method_not_allowed", headers={"Allow": allowed})
    return ApiError(400, "The request is malformed.", code="invalid_value")


def install_error_handlers(app: FastAPI, *, retry_after_s: int) -> None:
    """Our own answers in place of FastAPI's.

    Exceptions not listed here end in ``middleware.RequestContext``.
    """

    async def answer(request: Request, error: Exception) -> Response:
        return error_response(to_api_error(error, retry_after_s=retry_after_s))

    for kind in (ApiError, EngineError, SamplingParamsError, HTTPException):
        app.add_exception_handler(kind, answer)
