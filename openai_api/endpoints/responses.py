"""``POST /v1/responses``: items in, a response out, which is kept for those that refer to it.

Owns what a response is made from: earlier responses, instructions, input, and what becomes of input
that is too long. Chat renders it, ``ResponseWriter`` writes the answer, ``generate`` runs it. Runs
on the event loop; the ends of large answers are written in a worker thread.
"""

import json
import logging
from collections.abc import Awaitable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from engine.errors import ContextLengthError, RequestError
from engine.sampling_params import SamplingParamsError
from openai_api.answer.chunks import Chunk, num_values
from openai_api.answer.generation import Job, Usage
from openai_api.answer.models import json_response
from openai_api.answer.response_models import InputTokens
from openai_api.answer.response_writer import ResponseWriter, response_id
from openai_api.answer.writer import Head, new_head
from openai_api.app_state import AppState, app_state_of, caller_of, owner_of
from openai_api.endpoints.chat import render_chat_request
from openai_api.endpoints.generate import Endpoint, answer
from openai_api.engine_api import Tokenizer
from openai_api.errors import ApiError, to_api_error
from openai_api.logs import log_event
from openai_api.request.body import read_body
from openai_api.request.responses_chat import NamedFunction, chat_request, functions_of, in_own_words
from openai_api.request.responses_fields import ResponsesRequest
from openai_api.request.responses_input import (
    Item,
    check_call_ids,
    first_items,
    input_items,
    messages_of,
    response_of_item,
)
from openai_api.request.responses_notes import RESPONSES_FIELDS
from openai_api.response_store import StoredResponse, StoreError

ID_PREFIX = "resp"
# Of a context that is too long so much is left for the answer, unless it is to be shorter.
ROOM_SHARE = 4


async def create_response(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""
    exchange = _Exchange(app_state_of(request), owner_of(request))
    endpoint = Endpoint(
        body=ResponsesRequest,
        fields=RESPONSES_FIELDS,
        id_prefix=ID_PREFIX,
        render=exchange.render,
        writer=exchange.writer,
        finish=exchange.finish,
    )
    return await answer(request, endpoint)


async def count_input_tokens(request: Request) -> Response:
    """How many tokens a response would be made from.

    Raises:
        ApiError: as for a response; nothing is generated.
        EngineNotReadyError: while loading, draining or dead.
    """
    app_state = app_state_of(request)
    app_state.check_ready()
    with app_state.body_budget.share(caller_of(request)) as share:
        body = await read_body(request, ResponsesRequest, fields=RESPONSES_FIELDS, app_state=app_state, share=share)
        model = app_state.served_name(body.model)
        head = new_head(ID_PREFIX, app_state.engine.info, model=model)
        job = await _Exchange(app_state, owner_of(request)).render(body, head.id, app_state)
    return json_response(InputTokens(object="response.input_tokens", input_tokens=len(job.prompts[0])))


class _Exchange:
    """One request and its response. Mutable: each step leaves what the next one needs."""

    def __init__(self, app_state: AppState, owner: str) -> None:
        self._app_state = app_state
        self._owner = owner
        self._items: Sequence[Item] = ()
        self._id = ""
        self._is_to_be_kept = True

    async def render(self, body: ResponsesRequest, request_id: str, app_state: AppState) -> Job:
        """What the engine is asked.

        Raises:
            ApiError: 400 or 404 for what cannot be.
        """
        self._id, self._is_to_be_kept = response_id(request_id), body.store is not False
        functions = functions_of(body)
        self._items = await self._all_items(body)
        try:
            return await _rendered(body, self._items, functions, request_id, app_state)
        except (ApiError, RequestError, SamplingParamsError) as error:
            told = to_api_error(error, retry_after_s=app_state.settings.retry_after_s)
            raise in_own_words(told, functions) from None

    def writer(self, body: ResponsesRequest, job: Job, head: Head, tokenizer: Tokenizer) -> ResponseWriter:
        """The writer of this response."""
        self._writer = ResponseWriter(body, job, head, tokenizer)
        return self._writer

    async def finish(self, chunks: Sequence[Chunk], usage: Usage) -> None:
        """Write the end, and keep the response: whoever reads its last event finds it again."""
        writer, off_loop = self._writer, self._app_state.off_loop

        def close() -> StoredResponse:
            writer.read(chunks)
            writer.close(usage)
            return StoredResponse(writer.ended_json.encode(), json.dumps(self._items).encode())

        stored = await off_loop.run(writer.num_values + num_values(chunks), close)
        if not self._is_to_be_kept:
            return
        try:
            await self._app_state.responses.put(self._owner, self._id, stored)
        except StoreError as error:
            log_event(logging.WARNING, "response_not_stored", {"response_id": self._id, "reason": str(error)})
            writer.not_kept()

    async def _all_items(self, body: ResponsesRequest) -> list[Item]:
        """What was said before, then the input."""
        if body.input is None and body.previous_response_id is None:
            raise ApiError(
                400, "Missing required parameter: 'input'.", code="missing_required_parameter", param="input"
            )
        before = await self._items_before(body.previous_response_id)
        given = body.input or ()
        found = {item.id: await self._referred(item.id) for item in given if item.kind == "item_reference" and item.id}
        items = [*before, *input_items(given, self._id, found.get)]
        check_call_ids(items, len(before))
        return items

    async def _items_before(self, previous_id: str | None) -> list[Item]:
        if previous_id is None:
            return []
        items = await self._items_of(previous_id)
        if items is None:
            message = "There is no stored response of the id in 'previous_response_id'."
            raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
        return items

    async def _referred(self, item_id: str) -> Item | None:
        items = await self._items_of(response_of_item(item_id))
        return next((item for item in items or () if item["id"] == item_id), None)

    async def _items_of(self, stored_id: str) -> list[Item] | None:
        """What a response was made from, and what it answered."""
        stored = await self._app_state.responses.get(self._owner, stored_id)
        if stored is None:
            return None
        output: list[Item] = json.loads(stored.response)["output"]
        return [*json.loads(stored.items), *output]


async def _rendered(
    body: ResponsesRequest,
    items: Sequence[Item],
    functions: Sequence[NamedFunction],
    request_id: str,
    app_state: AppState,
) -> Job:
    """All items, or of those that do not fit as many of the newest as may be."""

    async def render(first: int) -> Job:
        request = chat_request(body, messages_of(items[first:]), functions)
        return await render_chat_request(request, request_id, app_state)

    try:
        return await render(0)
    except ContextLengthError:
        if body.truncation != "auto":
            raise
    limit = app_state.engine.info.max_model_len
    room = min(body.max_output_tokens or limit, limit // ROOM_SHARE)
    starts = first_items(items)
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if await _leaves_room(render(starts[middle]), limit - room):
            high = middle
        else:
            low = middle + 1
    return await render(starts[low] if starts else 0)


async def _leaves_room(rendering: Awaitable[Job], max_prompt_tokens: int) -> bool:
    try:
        job = await rendering
    except ContextLengthError:
        return False
    return len(job.prompts[0]) <= max_prompt_tokens
