"""``POST /v1/chat/completions``: messages in, the assistant's answer out.

Owns what becomes of the fields that only chat has. Knows nothing of the answer: ``ChatWriter``
writes it and ``generate`` runs it. Runs on the event loop; long messages are tokenised in a worker
thread.
"""

from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.chat_writer import ChatWriter
from openai_api.answer.generation import Job
from openai_api.app_state import AppState
from openai_api.endpoints.generate import Endpoint, answer
from openai_api.errors import invalid_value
from openai_api.request.field_support import CHAT_FIELDS
from openai_api.request.prompts import check_room, render_chat, room_for_answer, truncated
from openai_api.request.sampling_params import prompt_logprobs, sampling_params
from openai_api.request.schemas import NO_LIMIT, ChatCompletionRequest
from openai_api.request.structured_outputs import check_closes, compiled
from openai_api.request.tool_choice import tool_choice
from openai_api.request.tools import call_plan


async def create_chat_completion(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""
    return await answer(request, CHAT)


async def render_chat_request(body: ChatCompletionRequest, request_id: str, app_state: AppState) -> Job:
    """What the engine is asked; other APIs turn their bodies into this one.

    Raises:
        ApiError: 400 for what cannot be; ``param`` is chat's own name of the field.
    """
    logprobs, max_tokens, choice = _num_logprobs(body), _max_tokens(body), tool_choice(body)
    prompt = await render_chat(
        app_state,
        body.messages,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        must_fit=body.truncate_prompt_tokens is None,
        tools=None if choice is None else choice.shown,
    )
    token_ids = truncated(prompt.token_ids, body.truncate_prompt_tokens, keep_bos=True)
    check_room(app_state, token_ids)
    calls = None if choice is None else await call_plan(body, choice, app_state, prompt)
    grammar = await compiled(body, app_state, lead=prompt.answer_lead) if calls is None else calls.grammar
    if body.x_close:
        await check_closes(grammar, app_state, room=room_for_answer(app_state, len(token_ids), max_tokens))
    params = sampling_params(
        body,
        app_state,
        max_tokens=max_tokens,
        logprobs=logprobs,
        stop=prompt.stop,
        stop_token_ids=prompt.stop_token_ids,
        grammar=grammar,
    )
    if calls is not None:
        params = replace(params, stop=())  # the grammar has them
    return Job(
        request_id=request_id,
        prompts=(token_ids,),
        params=params,
        num_prompt_logprobs=prompt_logprobs(body),
        prediction=await _prediction(body, app_state),
        calls=calls,
    )


async def _prediction(body: ChatCompletionRequest, app_state: AppState) -> Sequence[int]:
    """No more of it than an answer may have."""
    text = "" if body.prediction is None else body.prediction.text[: app_state.settings.max_text_chars]
    encode, limit = app_state.engine.tokenizer.encode, app_state.engine.info.max_model_len
    return await app_state.off_loop.run(len(text), lambda: encode(text)[:limit])


def _num_logprobs(body: ChatCompletionRequest) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid_value("top_logprobs", "'top_logprobs' is only allowed with 'logprobs': true.")
    return (body.top_logprobs or 0) if body.logprobs else None


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    """``NO_LIMIT`` is what chat does without a limit, so it differs from none."""
    new, old = (None if limit == NO_LIMIT else limit for limit in (body.max_completion_tokens, body.max_tokens))
    if new is not None and old is not None and new != old:
        raise invalid_value("max_tokens", "'max_tokens' differs from 'max_completion_tokens'; give one of them.")
    return old if new is None else new


CHAT = Endpoint(
    body=ChatCompletionRequest,
    fields=CHAT_FIELDS,
    id_prefix="chatcmpl",
    render=render_chat_request,
    writer=ChatWriter,
)
