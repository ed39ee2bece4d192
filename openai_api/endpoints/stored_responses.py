"""Responses that were kept: looked at, listed by the items they were made from, removed.

Owns the words about one that is not there, and the pages of a list. Knows nothing of how a response
came about. Runs on the event loop.
"""

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.models import json_response
from openai_api.answer.response_models import DeletedResponse, ResponseItemList
from openai_api.app_state import app_state_of, owner_of
from openai_api.errors import ApiError, invalid_value
from openai_api.request.query import AFTER, QueryParameter, limit_of, order_of, query_of
from openai_api.response_store import StoredResponse

# OpenAI's clients send the parameter in words of their own: False, false, 0.
STREAM = QueryParameter(name="stream", about="A stored response is not streamed again.", default="false")
ITEMS_QUERY = (limit_of(20, 100), AFTER, order_of("desc"))


async def retrieve_response(request: Request) -> Response:
    """The response as it was answered.

    Raises:
        ApiError: 404, it is not there; 400, it is to be streamed once more.
    """
    if query_of(request)["stream"].lower() not in ("false", "0", ""):
        raise invalid_value("stream", "A stored response is not streamed again; only 'stream=false' can be given.")
    stored = await _stored(request)
    return Response(stored.response, media_type="application/json")


async def delete_response(request: Request) -> Response:
    """Remove it.

    Raises:
        ApiError: 404, it is not there.
    """
    response_id = request.path_params["response_id"]
    if not await app_state_of(request).responses.delete(owner_of(request), response_id):
        raise _not_found()
    return json_response(DeletedResponse(id=response_id, object="response", deleted=True))


async def cancel_response(request: Request) -> Response:
    """Only what runs in the background could be cancelled: whoever waits for another hangs up.

    Raises:
        ApiError: 404 or 400.
    """
    await _stored(request)
    raise invalid_value("response_id", "Only a response with 'background': true can be cancelled; this one has ended.")


async def list_input_items(request: Request) -> Response:
    """A page of what the response was made from, the newest first unless ``order=asc``.

    Raises:
        ApiError: 404, it is not there; 400, the page cannot be.
    """
    items: list[Mapping[str, Any]] = json.loads((await _stored(request)).items)
    query = query_of(request)
    limit = query["limit"]
    items = items if query["order"] == "asc" else items[::-1]
    begin = _begin(items, query["after"])
    page = [dict(item) for item in items[begin : begin + limit]]
    ids = [item["id"] for item in page] or [None]
    has_more = begin + limit < len(items)
    return json_response(
        ResponseItemList(object="list", data=page, first_id=ids[0], last_id=ids[-1], has_more=has_more)
    )


async def _stored(request: Request) -> StoredResponse:
    stored = await app_state_of(request).responses.get(owner_of(request), request.path_params["response_id"])
    if stored is None:
        raise _not_found()
    return stored


def _not_found() -> ApiError:
    return ApiError(404, "There is no stored response of this id.", code="response_not_found", param="response_id")


def _begin(items: list[Mapping[str, Any]], after: str | None) -> int:
    if after is None:
        return 0
    begin = next((index + 1 for index, item in enumerate(items) if item["id"] == after), None)
    if begin is None:
        raise invalid_value("after", "Invalid value for 'after': expected the id of an item of this response.")
    return begin
