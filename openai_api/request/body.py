"""How a request body is read: every rule about bodies, in the order they are checked.

Owns size, time and the way to JSON and schema; knows no field. Runs on the event loop; large bodies
are parsed in a worker thread, unless their client has gone.
"""

import asyncio
from typing import TypeVar

from starlette.requests import Request

from openai_api.app_state import AppState
from openai_api.body_budget import BodyShare
from openai_api.disconnects import unless_disconnected
from openai_api.errors import ApiError, retry_after
from openai_api.request.content_type import check_content_type
from openai_api.request.request_field import RequestField
from openai_api.request.strict_json import parse_json
from openai_api.request.strict_model import StrictModel
from openai_api.request.validation import validate

M = TypeVar("M", bound=StrictModel)


async def read_body(
    request: Request, model: type[M], *, fields: tuple[RequestField, ...], app_state: AppState, share: BodyShare
) -> M:
    """The body of ``request`` as a ``model``; its bytes are taken from ``share``.

    Raises:
        ApiError: 415, 413, 408, 503 or 400.
        ClientDisconnect: the client went away.
    """
    settings = app_state.settings
    check_content_type(request.headers)
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            body = await _read_bytes(request, settings.max_body_bytes, share)
    except TimeoutError:
        message = f"The request body did not arrive within {settings.body_timeout_s:g} seconds."
        raise ApiError(408, message, code="request_timeout", headers={"Connection": "close"}) from None

    def parse() -> M:
        value = parse_json(body, max_depth=settings.max_json_depth, max_values=settings.max_json_values)
        body.clear()
        return validate(value, model, fields)

    parsing = app_state.off_loop.run(len(body), parse)
    return await (unless_disconnected(request.receive, parsing) if share.is_large else parsing)


async def _read_bytes(request: Request, max_body_bytes: int, share: BodyShare) -> bytearray:
    """The body, to its end: a client that is still sending would not read why it is refused."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_body_bytes:
        raise _too_large(max_body_bytes)
    body, num_bytes, is_room = bytearray(), 0, True
    async for piece in request.stream():
        num_bytes += len(piece)
        if num_bytes > max_body_bytes:
            raise _too_large(max_body_bytes)
        is_room = is_room and share.take(len(piece))
        if is_room:
            body += piece
        else:
            body.clear()
    if not is_room:
        message = "The server holds as many bytes of request bodies as it can; try again."
        raise ApiError(503, message, code="busy", headers=retry_after(1))
    return body


def _too_large(max_body_bytes: int) -> ApiError:
    return ApiError(413, f"The request body is larger than {max_body_bytes} bytes.", code="request_too_large")
