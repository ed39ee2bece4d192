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

from engine.grammar.compiler import Grammar
from engine.sampling_params import SamplingParams
from openai_api.answer.completion_writer import CompletionWriter
from openai_api.answer.generation import Echo, Job
from openai_api.app_state import AppState
from openai_api.endpoints.generate import Endpoint, answer
from openai_api.errors import invalid_value
from openai_api.request.field_support import COMPLETION_FIELDS, DEFAULT_MAX_TOKENS, MAX_ANSWER_VALUES, MAX_CHOICES
from openai_api.request.prompts import (
    begins_with_bos,
    check_text_length,
    check_token_ids,
    encode_prompt,
    room_for_answer,
    truncated,
)
from openai_api.request.sampling_params import prompt_logprobs, sampling_params
from openai_api.request.schemas import CompletionRequest
from openai_api.request.structured_outputs import check_closes, compiled


async def create_completion(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""
    return await answer(request, COMPLETION)


async def render_completion_request(body: CompletionRequest, request_id: str, app_state: AppState) -> Job:
    """What the engine is asked; other APIs turn their bodies into this one.

    Raises:
        ApiError: 400 for what cannot be; ``param`` is the name of the field in text completions.
    """
    prompts = await _prompts(body, app_state)
    grammar = await compiled(body, app_state)
    if body.x_close:
        longest = max(len(prompt.token_ids) for prompt in prompts)
        await check_closes(grammar, app_state, room=room_for_answer(app_state, longest, _max_tokens(body)))
    job = Job(
        request_id=request_id,
        prompts=tuple(prompt.token_ids for prompt in prompts),
        params=_params(body, app_state, grammar),
        echo=tuple(prompt.echo for prompt in prompts) if body.echo else (),
        num_echo_logprobs=body.logprobs,
        num_prompt_logprobs=prompt_logprobs(body),
    )
    _check_size(job, returns_token_ids=bool(body.return_token_ids))
    return job


def _max_tokens(body: CompletionRequest) -> int:
    return DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens


def _check_size(job: Job, *, returns_token_ids: bool) -> None:
    """Each choice tells of its prompt anew."""
    if job.num_choices > MAX_CHOICES:
        message = f"{len(job.prompts)} prompts with {job.params.n} choices each are more than {MAX_CHOICES} choices."
        raise invalid_value("n", message)
    per_token = len(job.echo[:1]) + returns_token_ids
    if job.echo and job.num_echo_logprobs is not None:
        per_token += 1 + job.num_echo_logprobs
    if job.num_prompt_logprobs is not None:
        per_token += 1 + job.num_prompt_logprobs
    num_values = job.params.n * sum(map(len, job.prompts)) * per_token
    if num_values > MAX_ANSWER_VALUES:
        message = f"The answer would say {num_values} things of its prompts, at most {MAX_ANSWER_VALUES} are allowed: "
        raise invalid_value("n", f"{message}set a lower 'n', or ask for less about fewer tokens.")


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One prompt as the model gets it, and as an answer repeats it."""

    token_ids: Sequence[int]
    echo: Echo


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
        prompts.append(
            _of_text(given, body, app_state) if isinstance(given, str) else _of_token_ids(given, body, app_state)
        )
        if len(prompts[-1].token_ids) > limit:
            return prompts[-1:]
    return prompts


def _of_token_ids(given: list[int], body: CompletionRequest, app_state: AppState) -> _Prompt:
    check_token_ids(app_state, given, param="prompt")
    kept = truncated(given, body.truncate_prompt_tokens, keep_bos=False)
    return _Prompt(kept, Echo(app_state.engine.tokenizer.decode(kept, skip_special=False) if body.echo else ""))


def _of_text(given: str, body: CompletionRequest, app_state: AppState) -> _Prompt:
    tokenizer, parse_special = app_state.engine.tokenizer, bool(body.parse_special)
    token_ids = encode_prompt(tokenizer, given, add_bos=True, parse_special=parse_special)
    kept = truncated(token_ids, body.truncate_prompt_tokens, keep_bos=True)
    hides_first = not (parse_special and begins_with_bos(tokenizer, given))
    # Only what was cut is decoded: decoding might not restore the client's very characters.
    if len(kept) < len(token_ids):
        given = tokenizer.decode(kept[hides_first:], skip_special=not parse_special)
    return _Prompt(kept, Echo(given, hides_first))


def _params(body: CompletionRequest, app_state: AppState, grammar: Grammar | None) -> SamplingParams:
    if body.logprob_token_ids and body.max_tokens == 0:
        message = "'logprob_token_ids' are told of generated tokens; with 'max_tokens': 0 there are none."
        raise invalid_value("logprob_token_ids", message)
    return sampling_params(
        body,
        app_state,
        max_tokens=_max_tokens(body),
        logprobs=body.logprobs,
        echo_logprobs=body.logprobs if body.echo else None,
        grammar=grammar,
    )


COMPLETION = Endpoint(
    body=CompletionRequest,
    fields=COMPLETION_FIELDS,
    id_prefix="cmpl",
    render=render_completion_request,
    writer=CompletionWriter,
)
