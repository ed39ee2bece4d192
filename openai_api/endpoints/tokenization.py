"""``POST /tokenize``, ``POST /detokenize`` and ``GET /tokenizer_info``, in vLLM's shapes.

Owns which of their fields go together. Never asks the engine to compute, so a full queue does not
matter. Runs on the event loop; long texts are tokenised, and long answers written, in a worker
thread.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.json_pieces import large_json_response
from openai_api.answer.logprobs import legacy_token
from openai_api.answer.models import json_response
from openai_api.answer.server_models import DetokenizeAnswer, TokenizeAnswer, TokenizerInfoAnswer
from openai_api.app_state import AppState, app_state_of, caller_of
from openai_api.disconnects import unless_disconnected
from openai_api.engine_api import Tokenizer
from openai_api.errors import ApiError, invalid_value
from openai_api.request.body import read_body
from openai_api.request.field_support import DETOKENIZE_FIELDS, TOKENIZE_FIELDS
from openai_api.request.prompts import check_text_length, check_token_ids, encode_prompt, render_chat
from openai_api.request.request_field import RequestField
from openai_api.request.tokenize_fields import DetokenizeRequest, TokenizeRequest

B = TypeVar("B", TokenizeRequest, DetokenizeRequest)

# Loading refuses a tokenizer without them.
BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"


async def tokenizer_info(request: Request) -> Response:
    """Names of tokens and the chat template, which lm-eval's remote tokenizer reads.

    Raises:
        EngineNotReadyError: while loading, draining or dead.
    """
    app_state = app_state_of(request)
    app_state.check_ready()
    info = app_state.engine.info
    return json_response(
        TokenizerInfoAnswer(
            tokenizer_class="GemmaTokenizer",
            bos_token=BOS,
            eos_token=EOS,
            pad_token=PAD,
            unk_token=UNK,
            add_bos_token=True,
            add_eos_token=False,
            model_max_length=info.max_model_len,
            chat_template=info.chat_template,
        )
    )


async def _answer(
    request: Request,
    model: type[B],
    fields: tuple[RequestField, ...],
    respond: Callable[[B, AppState], Coroutine[Any, Any, Response]],
) -> Response:
    """The response to a body, of a server that is ready and, if the client names one, of its model."""
    app_state = app_state_of(request)
    app_state.check_ready()
    with app_state.body_budget.share(caller_of(request)) as share:
        body = await read_body(request, model, fields=fields, app_state=app_state, share=share)
        app_state.served_name(body.model)
        responding = respond(body, app_state)
        return await (unless_disconnected(request.receive, responding) if share.is_large else responding)


async def tokenize(request: Request) -> Response:
    """A text or messages as token ids, with their count in tokens.

    Raises:
        ApiError: a wrong body, or fields that do not go together.
        EngineNotReadyError: while loading, draining or dead.
    """
    return await _answer(request, TokenizeRequest, TOKENIZE_FIELDS, _tokenize)


async def _tokenize(body: TokenizeRequest, app_state: AppState) -> Response:
    _check_prompt_or_messages(body)
    token_ids = await _token_ids(body, app_state)
    return await app_state.off_loop.run(len(token_ids), lambda: _tokenized(body, token_ids, app_state))


def _check_prompt_or_messages(body: TokenizeRequest) -> None:
    if body.prompt is None and body.messages is None:
        raise ApiError(400, "Missing required parameter: 'prompt'.", code="missing_required_parameter", param="prompt")
    if body.prompt is not None and body.messages is not None:
        raise invalid_value("messages", "Give either 'prompt' or 'messages'.")
    if body.messages is not None and body.parse_special:
        raise invalid_value("parse_special", "The text of messages is never read as control tokens.")
    if body.prompt is not None and (body.add_generation_prompt or body.continue_final_message):
        raise invalid_value("add_generation_prompt", "Turns are only opened or continued with 'messages'.")


async def _token_ids(body: TokenizeRequest, app_state: AppState) -> Sequence[int]:
    if body.messages is not None:
        prompt = await render_chat(
            app_state,
            body.messages,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            must_fit=False,
        )
        return prompt.token_ids
    text, tokenizer = body.prompt or "", app_state.engine.tokenizer
    add_bos = body.add_special_tokens is not False
    check_text_length(app_state, text, param="prompt", must_fit=False)
    parse_special = _asks_for_an_id(body) if body.parse_special is None else body.parse_special
    return await app_state.off_loop.run(
        len(text), lambda: encode_prompt(tokenizer, text, add_bos=add_bos, parse_special=parse_special)
    )


def _asks_for_an_id(body: TokenizeRequest) -> bool:
    """So lm-eval learns the ids of the names in ``tokenizer_info``, whose client cannot ask for ``parse_special``: the
    prompt is such a name and nothing else. None of these tokens can open or close a turn.
    """
    return body.add_special_tokens is False and body.prompt in (BOS, EOS, PAD, UNK)


def _tokenized(body: TokenizeRequest, token_ids: Sequence[int], app_state: AppState) -> Response:
    strs = _token_strs(token_ids, app_state.engine.tokenizer) if body.return_token_strs else None
    # Not validated: that takes 20 ms for a million ids, in which no other thread runs.
    answer = TokenizeAnswer.model_construct(
        count=len(token_ids), max_model_len=app_state.engine.info.max_model_len, tokens=list(token_ids), token_strs=strs
    )
    return large_json_response(answer, size=len(token_ids), small_size=app_state.settings.off_loop_bytes)


def _token_strs(token_ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """One object for each of the different tokens, of which a long text has few."""
    known: dict[int, str] = {}
    for token_id in token_ids:
        if token_id not in known:
            known[token_id] = legacy_token(token_id, tokenizer)
    return [known[token_id] for token_id in token_ids]


async def detokenize(request: Request) -> Response:
    """Token ids as text, control tokens by name.

    Raises:
        ApiError: a wrong body, or ids outside of the vocabulary.
        EngineNotReadyError: while loading, draining or dead.
    """
    return await _answer(request, DetokenizeRequest, DETOKENIZE_FIELDS, _detokenize)


async def _detokenize(body: DetokenizeRequest, app_state: AppState) -> Response:
    return await app_state.off_loop.run(len(body.tokens), lambda: _detokenized(body.tokens, app_state))


def _detokenized(token_ids: Sequence[int], app_state: AppState) -> Response:
    check_token_ids(app_state, token_ids, param="tokens")
    text = app_state.engine.tokenizer.decode(token_ids, skip_special=False)
    return large_json_response(
        DetokenizeAnswer(prompt=text), size=len(text), small_size=app_state.settings.off_loop_bytes
    )
