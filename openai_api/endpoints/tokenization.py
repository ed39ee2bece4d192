"""``POST /tokenize`` and ``POST /detokenize``, in vLLM's shapes.

Owns which of their fields go together. Never asks the engine to compute, so a full queue does not
matter. Runs on the event loop; long texts are tokenised in a worker thread.
"""

from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.logprobs import legacy_token
from openai_api.answer.models import DetokenizeAnswer, TokenizeAnswer, json_response
from openai_api.app_state import AppState, app_state_of
from openai_api.errors import ApiError, invalid_value
from openai_api.request.body import read_body
from openai_api.request.field_support import DETOKENIZE_FIELDS, TOKENIZE_FIELDS, RequestField
from openai_api.request.prompts import check_token_ids, render_chat, run_sized
from openai_api.request.schemas import DetokenizeRequest, TokenizeRequest

B = TypeVar("B", TokenizeRequest, DetokenizeRequest)


async def _read(request: Request, model: type[B], fields: tuple[RequestField, ...]) -> B:
    """The body, of a server that is ready and, if the client names one, of its model."""
    app_state = app_state_of(request)
    app_state.check_ready()
    body = await read_body(request, model, fields=fields, settings=app_state.settings)
    if body.model is not None:
        app_state.check_model(body.model)
    return body


async def tokenize(request: Request) -> Response:
    """A text or messages as token ids, with their count in tokens.

    Raises:
        ApiError: a wrong body, or fields that do not go together.
        EngineNotReadyError: while loading, draining or dead.
    """
    app_state = app_state_of(request)
    body = await _read(request, TokenizeRequest, TOKENIZE_FIELDS)
    _check_prompt_or_messages(body)
    token_ids = await _token_ids(body, app_state)
    answer = TokenizeAnswer(
        count=len(token_ids), max_model_len=app_state.engine.info.max_model_len, tokens=token_ids, token_strs=None
    )
    if body.return_token_strs:
        tokenizer = app_state.engine.tokenizer
        answer.token_strs = [legacy_token(token_id, tokenizer) for token_id in token_ids]
    return json_response(answer)


def _check_prompt_or_messages(body: TokenizeRequest) -> None:
    if body.prompt is None and body.messages is None:
        raise ApiError(400, "Missing required parameter: 'prompt'.", code="missing_required_parameter", param="prompt")
    if body.prompt is not None and body.messages is not None:
        raise invalid_value("messages", "Give either 'prompt' or 'messages'.")
    if body.messages is not None and body.parse_special:
        raise invalid_value("parse_special", "The text of messages is never read as control tokens.")
    if body.prompt is not None and (body.add_generation_prompt or body.continue_final_message):
        raise invalid_value("add_generation_prompt", "Turns are only opened or continued with 'messages'.")


async def _token_ids(body: TokenizeRequest, app_state: AppState) -> list[int]:
    if body.messages is not None:
        prompt = await render_chat(
            app_state,
            body.messages,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
        )
        return list(prompt.token_ids)
    text, tokenizer = body.prompt or "", app_state.engine.tokenizer
    add_bos = body.add_special_tokens is not False
    return await run_sized(
        app_state, len(text), lambda: tokenizer.encode(text, add_bos=add_bos, parse_special=bool(body.parse_special))
    )


async def detokenize(request: Request) -> Response:
    """Token ids as text, control tokens by name.

    Raises:
        ApiError: a wrong body, or ids outside of the vocabulary.
        EngineNotReadyError: while loading, draining or dead.
    """
    app_state = app_state_of(request)
    body = await _read(request, DetokenizeRequest, DETOKENIZE_FIELDS)

    def decode() -> Response:
        check_token_ids(app_state, body.tokens, param="tokens")
        return json_response(
            DetokenizeAnswer(prompt=app_state.engine.tokenizer.decode(body.tokens, skip_special=False))
        )

    return await run_sized(app_state, len(body.tokens), decode)
