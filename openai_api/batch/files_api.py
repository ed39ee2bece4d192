"""``/v1/files``: upload, list, retrieve, content, delete.

Owns how an upload becomes a stored file and what is refused of it. Knows nothing of batches. Event
loop; a large file's bytes are written as they come.
"""

import asyncio
import re

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from openai_api.answer.batch_models import DeletedFile, FileAnswer, FileList
from openai_api.answer.models import json_response
from openai_api.app_state import app_state_of, owner_of
from openai_api.batch.file_store import NewFile, NoRoomError, StoredFile
from openai_api.batch.paging import LIMIT, page_answer, page_query
from openai_api.batch.service import BatchService, service_of, storage_errors
from openai_api.batch.upload import FormWithFile, boundary_of
from openai_api.errors import ApiError, invalid_value
from openai_api.request.batch_fields import MAX_LIFE_S, MIN_LIFE_S
from openai_api.request.query import AFTER, QueryParameter, order_of

MAX_FORM_BYTES = 64 * 1024  # of an upload beside its file
PURPOSES = ("batch", "user_data")
EXPIRES_ANCHOR, EXPIRES_SECONDS = "expires_after[anchor]", "expires_after[seconds]"
BATCH_LIFE_S = MAX_LIFE_S  # of an input file, unless its upload says otherwise, as with OpenAI
_FIELDS = ("purpose", EXPIRES_ANCHOR, EXPIRES_SECONDS)
PURPOSE = QueryParameter(name="purpose", about="Only files of this purpose.")
LIST_QUERY = (LIMIT, AFTER, order_of("desc"), PURPOSE)


async def upload_file(request: Request) -> Response:
    """200 with the stored file, which is on the disk then.

    Raises:
        ApiError: 415, 400, 413 or 408, the form or the file is not what is taken.
    """
    boundary = boundary_of(request.headers.get("content-type", ""))
    service = service_of(request)
    _check_announced(request, service.files.limits.max_file_bytes)
    new: NewFile | None = None
    try:
        new = await asyncio.to_thread(service.files.begin)
        form = FormWithFile(boundary, new.write)
        async with asyncio.timeout(app_state_of(request).settings.request_timeout_s):
            async for data in request.stream():
                form.feed(data)
        form.end()
        purpose, lives_s = _purpose(form.fields), _life_s(form.fields)
        stored = await asyncio.to_thread(
            service.files.add,
            new,
            owner=owner_of(request),
            filename=form.filename or "",
            purpose=purpose,
            lives_s=lives_s,
        )
    except NoRoomError as error:
        _discard(new)
        raise ApiError(413, str(error), code="no_room_for_file") from None
    except TimeoutError:
        _discard(new)
        raise ApiError(408, "The file did not arrive in time.", code="request_timeout") from None
    except (ApiError, ClientDisconnect, OSError, asyncio.CancelledError):
        _discard(new)
        with storage_errors():
            raise
    return json_response(file_answer(stored))


def _check_announced(request: Request, max_file_bytes: int) -> None:
    """A client that says how much will come need not send all of it to be refused."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_file_bytes + MAX_FORM_BYTES:
        raise ApiError(413, f"The file is larger than {max_file_bytes} bytes.", code="request_too_large")


def _discard(new: NewFile | None) -> None:
    if new is not None:
        new.discard()


def _purpose(fields: dict[str, str]) -> str:
    for name in fields:
        if name not in _FIELDS:
            raise ApiError(
                400,
                f"Unknown field of the form; allowed are file, {', '.join(_FIELDS)}.",
                code="unknown_parameter",
                param=name,
            )
    purpose = fields.get("purpose")
    if purpose not in PURPOSES:
        raise invalid_value("purpose", f"'purpose' must be one of {', '.join(PURPOSES)}.")
    return purpose


def _life_s(fields: dict[str, str]) -> int | None:
    anchor, seconds = fields.get(EXPIRES_ANCHOR), fields.get(EXPIRES_SECONDS)
    if anchor is None and seconds is None:
        return BATCH_LIFE_S if fields["purpose"] == "batch" else None
    if anchor != "created_at":
        raise invalid_value(EXPIRES_ANCHOR, f"'{EXPIRES_ANCHOR}' must be created_at.")
    if not re.fullmatch(r"\d{1,9}", seconds or "") or not MIN_LIFE_S <= int(seconds or 0) <= MAX_LIFE_S:
        raise invalid_value(EXPIRES_SECONDS, f"'{EXPIRES_SECONDS}' must be from {MIN_LIFE_S} to {MAX_LIFE_S}.")
    return int(seconds or 0)


async def list_files(request: Request) -> Response:
    """The caller's own. Raises: ApiError 400."""
    query = page_query(request)
    found = service_of(request).files.page(
        owner_of(request),
        purpose=query["purpose"],
        after=query["after"],
        limit=query["limit"] + 1,
        is_newest_first=query["order"] == "desc",
    )
    return page_answer(FileList, [file_answer(stored) for stored in found], limit=query["limit"])


async def retrieve_file(request: Request) -> Response:
    """Raises: ApiError 404."""
    return json_response(file_answer(_found(request, service_of(request))))


async def file_content(request: Request) -> Response:
    """The bytes as they were uploaded or written. Raises: ApiError 404."""
    service = service_of(request)
    stored = _found(request, service)
    headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return FileResponse(service.files.path(stored.id), media_type="application/octet-stream", headers=headers)


async def delete_file(request: Request) -> Response:
    """Raises: ApiError 404."""
    service = service_of(request)
    stored = _found(request, service)
    with storage_errors():
        await asyncio.to_thread(service.files.delete, stored.id)
    return json_response(DeletedFile(id=stored.id, object="file", deleted=True))


def _found(request: Request, service: BatchService) -> StoredFile:
    stored = service.files.find(owner_of(request), request.path_params["file_id"])
    if stored is None:
        raise ApiError(404, "There is no such file.", code="file_not_found", param="file_id")
    return stored


def file_answer(stored: StoredFile) -> FileAnswer:
    """As OpenAI's clients read it."""
    return FileAnswer(
        id=stored.id,
        object="file",
        bytes=stored.num_bytes,
        created_at=stored.created_at,
        expires_at=stored.expires_at,
        filename=stored.filename,
        purpose=stored.purpose,
        status="processed",
    )
