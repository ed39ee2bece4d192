"""``POST /v1/completions``: prompts in, their continuations out.

A prompt is text or token ids. With ``echo`` it stands in front of its continuations, with
``logprobs`` too. Owns what becomes of the fields that only completions have; ``CompletionWriter``
writes the answer and ``generate`` runs it. Runs on the event loop; long prompts are tokenised in a
worker thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from engine.sampling_params import SamplingParams
from openai_api.answer.completion_writer import CompletionWriter
from openai_api.answer.generation import Job
from openai_api.app_state import AppState
from openai_api.endpoints.generate import Endpoint, answer
from openai_api.request.field_support import COMPLETION_FIELDS, DEFAULT_MAX_TOKENS
from openai_api.request.prompts import check_text_length, check_token_ids, truncated
from openai_api.request.sampling_params import sampling_params
from openai_api.request.schemas import CompletionRequest


async def create_completion(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""
    return await answer(request, COMPLETION)


async def _render(body: CompletionRequest, request_id: str, app_state: AppState) -> Job:
    prompts = await _prompts(body, app_state)
    return Job(
        request_id=request_id,
        prompts=tuple(prompt.token_ids for prompt in prompts),
        params=_params(body, app_state),
        echo=tuple(prompt.text for prompt in prompts) if body.echo else (),
    )


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One prompt as the model gets it.

    ``text`` is its echo; a ``<bos>`` that was put in front is not in it.
    """

    token_ids: Sequence[int]
    text: str


async def _prompts(body: CompletionRequest, app_state: AppState) -> list[_Prompt]:
    return await app_state.off_loop.run(sum(map(len, body.prompt)), lambda: _prepare_all(body, app_state))


def _prepare_all(body: CompletionRequest, app_state: AppState) -> list[_Prompt]:
    """All prompts, or only one that is too long: the engine refuses it, and with it the request."""
    must_fit, limit = body.truncate_prompt_tokens is None, app_state.engine.info.max_model_len
    for given in body.prompt:
        if isinstance(given, str):
            check_text_length(app_state, given, param="prompt", must_fit=must_fit)
    prompts = []
    for given in body.prompt:
        prompts.append(_prepare(given, body, app_state))
        if len(prompts[-1].token_ids) > limit:
            return prompts[-1:]
    return prompts


def _prepare(given: str | list[int], body: CompletionRequest, app_state: AppState) -> _Prompt:
    tokenizer = app_state.engine.tokenizer
    if not isinstance(given, str):
        check_token_ids(app_state, given, param="prompt")
        kept = truncated(given, body.truncate_prompt_tokens, keep_bos=False)
        return _Prompt(kept, tokenizer.decode(kept, skip_special=False) if body.echo else "")
    token_ids = tokenizer.encode(given, add_bos=True)
    kept = truncated(token_ids, body.truncate_prompt_tokens, keep_bos=True)
    # Only what was cut is decoded: decoding might not restore the client's very characters.
    return _Prompt(kept, given if len(kept) == len(token_ids) else tokenizer.decode(kept[1:]))


def _params(body: CompletionRequest, app_state: AppState) -> SamplingParams:
    return sampling_params(
        body,
        app_state,
        max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
    )


COMPLETION = Endpoint(
    body=CompletionRequest, fields=COMPLETION_FIELDS, id_prefix="cmpl", render=_render, writer=CompletionWriter
)
