"""``POST /v1/completions``: prompts in, their continuations out, whole or as a stream.

A prompt is text or token ids. With ``echo`` it stands in front of its continuations, with ``logprobs`` too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.generation import Chunk, Generation, Job, Usage
from openai_api.answer.logprobs import LegacyLogprobsWriter, num_logprobs
from openai_api.answer.models import Completion, CompletionChoice, LegacyLogprobs, json_response
from openai_api.answer.server_sent_events import ChunkWriter, EventStream
from openai_api.answer.shared import Head, check_stream_options, events, finish_word, fold, new_head, usage_answer
from openai_api.app_state import AppState, app_state_of
from openai_api.request.body import read_body
from openai_api.request.field_support import COMPLETION_FIELDS
from openai_api.request.prompts import check_token_ids, run_sized, truncated
from openai_api.request.sampling_params import sampling_params
from openai_api.request.schemas import CompletionRequest

DEFAULT_MAX_TOKENS = 16


async def create_completion(request: Request) -> Response:
    app_state = app_state_of(request)
    app_state.check_admission()
    body = await read_body(request, CompletionRequest, fields=COMPLETION_FIELDS, settings=app_state.settings)
    app_state.check_model(body.model)
    check_stream_options(body)
    head = new_head("cmpl", app_state)
    prompts = await _prompts(body, app_state)
    job = _job(head, body, app_state, prompts)
    generation = Generation(job, engine=app_state.engine, metrics=app_state.metrics)
    form = CompletionForm(head, body, app_state, prompts)
    if not body.stream:
        chunks = await fold(request, generation, head.deadline)
        return await run_sized(
            app_state, num_logprobs(chunks), lambda: json_response(form.answer(chunks, generation.usage))
        )
    stream = CompletionStream(form, head.chunk_writer("text_completion", body.stream_options), generation)
    return EventStream(events(generation, stream), deadline=head.deadline, settings=app_state.settings)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One prompt as the model gets it. ``text`` is its echo; a ``<bos>`` that was put in front is not in it."""

    token_ids: Sequence[int]
    text: str
    has_added_bos: bool


def _prepare(given: str | list[int], body: CompletionRequest, app_state: AppState) -> _Prompt:
    tokenizer = app_state.engine.tokenizer
    if not isinstance(given, str):
        check_token_ids(app_state, given, param="prompt")
        kept = truncated(given, body.truncate_prompt_tokens, keep_bos=False)
        return _Prompt(kept, tokenizer.decode(kept, skip_special=False) if body.echo else "", has_added_bos=False)
    token_ids = tokenizer.encode(given, add_bos=True)
    kept = truncated(token_ids, body.truncate_prompt_tokens, keep_bos=True)
    # Only what was cut is decoded: decoding might not restore the client's very characters.
    return _Prompt(kept, given if len(kept) == len(token_ids) else tokenizer.decode(kept[1:]), has_added_bos=True)


async def _prompts(body: CompletionRequest, app_state: AppState) -> list[_Prompt]:
    return await run_sized(
        app_state,
        sum(map(len, body.prompt)),
        lambda: [_prepare(given, body, app_state) for given in body.prompt],
    )


def _job(head: Head, body: CompletionRequest, app_state: AppState, prompts: Sequence[_Prompt]) -> Job:
    params = sampling_params(
        body,
        app_state,
        max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
    )
    return Job(
        request_id=head.id,
        prompts=tuple(prompt.token_ids for prompt in prompts),
        params=params,
        echo=tuple(prompt.text for prompt in prompts) if body.echo else (),
    )


class CompletionForm:
    """The shape of a completion, whole or in chunks: the older log probabilities count through a choice's text."""

    def __init__(self, head: Head, body: CompletionRequest, app_state: AppState, prompts: Sequence[_Prompt]) -> None:
        self.head = head
        self.prompts = prompts
        self.num_choices_per_prompt = body.n or 1
        self.returns_token_ids = bool(body.return_token_ids)
        self._logprobs = [
            LegacyLogprobsWriter(
                app_state.engine.tokenizer,
                num_alternatives=body.logprobs or 0,
                skip_first=bool(body.echo) and prompt.has_added_bos,
            )
            for prompt in prompts
            for _ in range(self.num_choices_per_prompt)
        ]

    def answer(self, chunks: Sequence[Chunk], usage: Usage) -> Completion:
        return Completion(
            id=self.head.id,
            object="text_completion",
            created=self.head.created,
            model=self.head.model,
            system_fingerprint=self.head.system_fingerprint,
            choices=[self._choice(chunk) for chunk in chunks],
            usage=usage_answer(usage),
        )

    def logprobs(self, chunk: Chunk) -> LegacyLogprobs | None:
        return self._logprobs[chunk.choice].write(chunk)

    def prompt_token_ids(self, choice: int) -> Sequence[int]:
        return self.prompts[choice // self.num_choices_per_prompt].token_ids

    def _choice(self, chunk: Chunk) -> CompletionChoice:
        choice = CompletionChoice(
            index=chunk.choice,
            text=chunk.text,
            logprobs=self.logprobs(chunk),
            finish_reason=finish_word(chunk.finish_reason),
        )
        if self.returns_token_ids:
            choice.token_ids = list(chunk.token_ids)
            choice.prompt_token_ids = list(self.prompt_token_ids(chunk.choice))
        return choice


class CompletionStream:
    """The same answer as events: one for each gain of a choice, the last with its ``finish_reason``. Mutable."""

    def __init__(self, form: CompletionForm, writer: ChunkWriter, generation: Generation) -> None:
        self.form = form
        self.writer = writer
        self.generation = generation
        self._begun: set[int] = set()

    def opening(self) -> str:
        return ""

    def write(self, chunk: Chunk) -> str:
        logprobs = self.form.logprobs(chunk)
        finish = "null" if chunk.finish_reason is None else f'"{chunk.finish_reason}"'
        choice = (
            f'{{"index":{chunk.choice},"text":{json.dumps(chunk.text)}'
            f',"logprobs":{"null" if logprobs is None else logprobs.model_dump_json()},"finish_reason":{finish}'
            f"{self._token_ids(chunk) if self.form.returns_token_ids else ''}}}"
        )
        return self.writer.event(choice, self.generation.usage)

    def _token_ids(self, chunk: Chunk) -> str:
        """The prompt's with the first chunk of a choice, then the chunk's own."""
        own = f',"token_ids":{list(chunk.token_ids)}'
        if chunk.choice in self._begun:
            return own
        self._begun.add(chunk.choice)
        return f'{own},"prompt_token_ids":{list(self.form.prompt_token_ids(chunk.choice))}'
