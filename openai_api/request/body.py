"""How a request body is read: every rule about bodies, in the order they are checked.

Owns size, time and the way to JSON and schema; knows no field. Runs on the event
loop; bodies above ``off_loop_bytes`` are parsed in a worker thread.
"""

import asyncio
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from openai_api.errors import ApiError
from openai_api.request.content_type import check_content_type
from openai_api.request.field_support import RequestField
from openai_api.request.strict_json import parse_json
from openai_api.request.validation import validate
from openai_api.settings import ServerSettings

M = TypeVar("M", bound=BaseModel)


async def read_body(
    request: Request, model: type[M], *, fields: tuple[RequestField, ...], settings: ServerSettings
) -> M:
    """The body of ``request`` as a ``model``.

    Raises:
        ApiError: 415, 413, 408 or 400.
    """
    check_content_type(request.headers)
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            body = await _read_bytes(request, settings.max_body_bytes)
    except TimeoutError:
        message = f"The request body did not arrive within {settings.body_timeout_s:g} seconds."
        raise ApiError(408, message, code="request_timeout", headers={"Connection": "close"}) from None

    def parse() -> M:
        return validate(parse_json(body, max_depth=settings.max_json_depth), model, fields)

    return await asyncio.to_thread(parse) if len(body) > settings.off_loop_bytes else parse()


async def _read_bytes(request: Request, max_body_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_body_bytes:
        raise _too_large(max_body_bytes)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_body_bytes:
            raise _too_large(max_body_bytes)
    return bytes(body)


def _too_large(max_body_bytes: int) -> ApiError:
    return ApiError(413, f"The request body is larger than {max_body_bytes} bytes.", code="request_too_large")
