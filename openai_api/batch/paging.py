"""A page of a list of files or batches: what is asked for, and how it is told.

Owns how a page says whether more follows. Knows neither files nor batches. Pure; on the event loop.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.batch_models import BatchAnswer, BatchList, FileAnswer, FileList
from openai_api.answer.models import json_response
from openai_api.request.query import limit_of, query_of, refuse_unknown

LIMIT = limit_of(20, 10_000)


def page_query(request: Request) -> Mapping[str, Any]:
    """What the route declares, and nothing else. Raises: ApiError 400."""
    refuse_unknown(request)
    return query_of(request)


def page_answer(
    kind: type[FileList | BatchList], found: Sequence[FileAnswer] | Sequence[BatchAnswer], *, limit: int
) -> Response:
    """200 with the first ``limit`` of ``found``, which has one more where another page follows."""
    data: list[Any] = list(found[:limit])
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return json_response(kind(object="list", data=data, first_id=first, last_id=last, has_more=len(found) > limit))
