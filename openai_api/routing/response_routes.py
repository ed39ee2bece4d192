"""The rows of ``/v1/responses`` and its family in the table of endpoints.

Owns their paths, methods and errors. Knows nothing of how they are served. Constants.
"""

from starlette.convertors import StringConvertor, register_url_convertor

from openai_api.answer.response_models import DeletedResponse, InputTokens, ResponseItemList, ResponseObject
from openai_api.endpoints.responses import count_input_tokens, create_response
from openai_api.endpoints.stored_responses import (
    ITEMS_QUERY,
    STREAM,
    cancel_response,
    delete_response,
    list_input_items,
    retrieve_response,
)
from openai_api.request.responses_fields import ResponsesRequest
from openai_api.routing.route import BODY, EVENTS, GENERATION, MODEL, Route

STORED_ERRORS = (400, 404, *MODEL)
STORED = "/v1/responses/{response_id:response}"


class _ResponseId(StringConvertor):
    """Any but the name of the path beside it, which has other methods, also where that is mistyped."""

    regex = "(?!input_token)[^/]+"


register_url_convertor("response", _ResponseId())


RESPONSE_ROUTES = (
    Route(
        path="/v1/responses",
        serve=create_response,
        body=ResponsesRequest,
        answer=ResponseObject,
        streams=EVENTS,
        errors=GENERATION,
    ),
    Route(
        path="/v1/responses/input_tokens",
        serve=count_input_tokens,
        body=ResponsesRequest,
        answer=InputTokens,
        errors=BODY,
    ),
    Route(
        path=STORED,
        serve=retrieve_response,
        answer=ResponseObject,
        errors=STORED_ERRORS,
        parameters=("response_id",),
        query=(STREAM,),
    ),
    Route(
        path=STORED,
        serve=delete_response,
        verb="DELETE",
        answer=DeletedResponse,
        errors=STORED_ERRORS,
        parameters=("response_id",),
    ),
    Route(
        path=f"{STORED}/input_items",
        serve=list_input_items,
        answer=ResponseItemList,
        errors=STORED_ERRORS,
        parameters=("response_id",),
        query=ITEMS_QUERY,
    ),
    Route(
        path=f"{STORED}/cancel",
        serve=cancel_response,
        verb="POST",
        answer=ResponseObject,
        errors=STORED_ERRORS,
        parameters=("response_id",),
    ),
)
