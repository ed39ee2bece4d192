"""``/v1/batches``: create, list, retrieve, cancel.

Owns what a batch is asked for and how it is told. Knows nothing of how it runs. Event loop.
"""

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.batch_models import (
    BatchAnswer,
    BatchErrorAnswer,
    BatchErrors,
    BatchList,
    RequestCounts,
)
from openai_api.answer.models import json_response
from openai_api.app_state import app_state_of, caller_of, owner_of
from openai_api.batch.batch_store import BatchState, BatchStatus, new_batch
from openai_api.batch.paging import LIMIT, page_answer, page_query
from openai_api.batch.service import BatchService, service_of, storage_errors
from openai_api.errors import ApiError, invalid_value
from openai_api.request.batch_fields import BATCH_FIELDS, WINDOWS_S, BatchRequest
from openai_api.request.body import read_body
from openai_api.request.query import AFTER

LIST_QUERY = (LIMIT, AFTER)


async def create_batch(request: Request) -> Response:
    """200 with the batch, which is on the disk then and will be validated.

    Raises:
        ApiError: the body is wrong, or there is no such file.
    """
    app_state, owner = app_state_of(request), owner_of(request)
    with app_state.body_budget.share(caller_of(request)) as share:
        body = await read_body(request, BatchRequest, fields=BATCH_FIELDS, app_state=app_state, share=share)
    service = service_of(request)
    stored = service.files.find(owner, body.input_file_id)
    if stored is None or stored.purpose != "batch":
        raise invalid_value("input_file_id", "'input_file_id' must be the id of a file with the purpose 'batch'.")
    expires = body.output_expires_after
    batch = new_batch(
        owner,
        endpoint=body.endpoint,
        input_file_id=stored.id,
        window=body.completion_window,
        window_s=WINDOWS_S[body.completion_window],
        metadata=body.metadata,
        output_lives_s=None if expires is None else expires.seconds,
    )
    with storage_errors():
        await service.create(batch)
    return json_response(batch_answer(batch))


async def list_batches(request: Request) -> Response:
    """The caller's own, the newest first. Raises: ApiError 400."""
    query = page_query(request)
    found = service_of(request).batches.page(owner_of(request), after=query["after"], limit=query["limit"] + 1)
    return page_answer(BatchList, [batch_answer(batch) for batch in found], limit=query["limit"])


async def retrieve_batch(request: Request) -> Response:
    """Raises: ApiError 404."""
    return json_response(batch_answer(_found(request, service_of(request))))


async def cancel_batch(request: Request) -> Response:
    """Raises: ApiError 404, or 409 for one that has ended."""
    service = service_of(request)
    with storage_errors():
        batch = await service.cancel(_found(request, service))
    if batch.status not in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
        raise ApiError(409, f"The batch has ended already: it is {batch.status}.", code="batch_has_ended")
    return json_response(batch_answer(batch))


def _found(request: Request, service: BatchService) -> BatchState:
    batch = service.find(owner_of(request), request.path_params["batch_id"])
    if batch is None:
        raise ApiError(404, "There is no such batch.", code="batch_not_found", param="batch_id")
    return batch


def batch_answer(batch: BatchState) -> BatchAnswer:
    """As OpenAI's clients read it; a file is named when it is the owner's."""
    has_ended = any(status in batch.times for status in ("completed", "cancelled", "expired"))
    times = {f"{status}_at": at for status, at in batch.times.items()}
    errors = [BatchErrorAnswer(code=e.code, message=e.message, param=e.param, line=e.line) for e in batch.errors]
    return BatchAnswer(
        id=batch.id,
        object="batch",
        endpoint=batch.endpoint,
        errors=BatchErrors(object="list", data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status.value,
        output_file_id=batch.output_file_id if has_ended and batch.num_output_bytes else None,
        error_file_id=batch.error_file_id if has_ended and batch.num_error_bytes else None,
        created_at=batch.created_at,
        expires_at=batch.expires_at,
        request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=batch.metadata,
        **times,
    )
