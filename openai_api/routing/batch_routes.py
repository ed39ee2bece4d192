"""The rows of ``/v1/files`` and ``/v1/batches`` in the table of endpoints.

Owns their paths, methods and errors. Knows nothing of how they are served. Constants.
"""

from openai_api.answer.batch_models import BatchAnswer, BatchList, DeletedFile, FileAnswer, FileList
from openai_api.batch import batches_api, files_api
from openai_api.batch.batches_api import cancel_batch, create_batch, list_batches, retrieve_batch
from openai_api.batch.files_api import delete_file, file_content, list_files, retrieve_file, upload_file
from openai_api.request.batch_fields import BatchRequest
from openai_api.routing.route import BODY, MODEL, Route

FOUND = (400, 404, *MODEL)
FILE, BATCH = "/v1/files/{file_id}", "/v1/batches/{batch_id}"

BATCH_ROUTES = (
    Route(path="/v1/files", serve=upload_file, verb="POST", answer=FileAnswer, errors=BODY),
    Route(path="/v1/files", serve=list_files, answer=FileList, errors=FOUND, query=files_api.LIST_QUERY),
    Route(path=FILE, serve=retrieve_file, answer=FileAnswer, errors=FOUND, parameters=("file_id",)),
    Route(path=FILE, serve=delete_file, verb="DELETE", answer=DeletedFile, errors=FOUND, parameters=("file_id",)),
    Route(
        path=f"{FILE}/content",
        serve=file_content,
        text="application/octet-stream",
        errors=FOUND,
        parameters=("file_id",),
    ),
    Route(path="/v1/batches", serve=create_batch, body=BatchRequest, answer=BatchAnswer, errors=BODY),
    Route(path="/v1/batches", serve=list_batches, answer=BatchList, errors=FOUND, query=batches_api.LIST_QUERY),
    Route(path=BATCH, serve=retrieve_batch, answer=BatchAnswer, errors=FOUND, parameters=("batch_id",)),
    Route(
        path=f"{BATCH}/cancel",
        serve=cancel_batch,
        verb="POST",
        answer=BatchAnswer,
        errors=(409, 415, *FOUND),
        parameters=("batch_id",),
    ),
)
