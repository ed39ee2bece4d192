"""``POST /v1/chat/completions``: messages in, the assistant's answer out, whole or as a stream."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.generation import Chunk, Generation, Job, Usage
from openai_api.answer.logprobs import chat_logprobs, num_logprobs
from openai_api.answer.models import AssistantMessage, ChatChoice, ChatCompletion, json_response
from openai_api.answer.server_sent_events import ChunkWriter, EventStream
from openai_api.answer.shared import Head, check_stream_options, events, finish_word, fold, new_head, usage_answer
from openai_api.app_state import AppState, app_state_of
from openai_api.engine_api import Tokenizer
from openai_api.errors import invalid_value
from openai_api.request.body import read_body
from openai_api.request.field_support import CHAT_FIELDS
from openai_api.request.prompts import render_chat, run_sized, truncated
from openai_api.request.sampling_params import sampling_params
from openai_api.request.schemas import ChatCompletionRequest


async def create_chat_completion(request: Request) -> Response:
    app_state = app_state_of(request)
    app_state.check_admission()
    body = await read_body(request, ChatCompletionRequest, fields=CHAT_FIELDS, settings=app_state.settings)
    app_state.check_model(body.model)
    check_stream_options(body)
    head = new_head("chatcmpl", app_state)
    job = await _job(head, body, app_state)
    generation = Generation(job, engine=app_state.engine, metrics=app_state.metrics)
    form = ChatForm(head, app_state.engine.tokenizer, job.prompts[0] if body.return_token_ids else None)
    if not body.stream:
        chunks = await fold(request, generation, head.deadline)
        return await run_sized(
            app_state, num_logprobs(chunks), lambda: json_response(form.answer(chunks, generation.usage))
        )
    stream = ChatStream(form, head.chunk_writer("chat.completion.chunk", body.stream_options), generation)
    return EventStream(events(generation, stream), deadline=head.deadline, settings=app_state.settings)


async def _job(head: Head, body: ChatCompletionRequest, app_state: AppState) -> Job:
    logprobs, max_tokens = _num_logprobs(body), _max_tokens(body)
    prompt = await render_chat(
        app_state,
        body.messages,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
    )
    params = sampling_params(
        body,
        app_state,
        max_tokens=max_tokens,
        logprobs=logprobs,
        stop=prompt.stop,
        stop_token_ids=prompt.stop_token_ids,
    )
    return Job(
        request_id=head.id,
        prompts=(truncated(prompt.token_ids, body.truncate_prompt_tokens, keep_bos=True),),
        params=params,
        prediction=await _prediction(body, app_state),
    )


async def _prediction(body: ChatCompletionRequest, app_state: AppState) -> Sequence[int]:
    text = "" if body.prediction is None else body.prediction.text
    return await run_sized(app_state, len(text), lambda: app_state.engine.tokenizer.encode(text))


def _num_logprobs(body: ChatCompletionRequest) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid_value("top_logprobs", "'top_logprobs' is only allowed with 'logprobs': true.")
    return (body.top_logprobs or 0) if body.logprobs else None


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    new, old = body.max_completion_tokens, body.max_tokens
    if new is not None and old is not None and new != old:
        raise invalid_value("max_tokens", "'max_tokens' differs from 'max_completion_tokens'; give one of them.")
    return old if new is None else new


@dataclass(frozen=True, slots=True)
class ChatForm:
    """The shape of a chat answer. ``prompt_token_ids`` are there if token ids shall be returned."""

    head: Head
    tokenizer: Tokenizer
    prompt_token_ids: Sequence[int] | None

    def answer(self, chunks: Sequence[Chunk], usage: Usage) -> ChatCompletion:
        answer = ChatCompletion(
            id=self.head.id,
            object="chat.completion",
            created=self.head.created,
            model=self.head.model,
            system_fingerprint=self.head.system_fingerprint,
            choices=[self._choice(chunk) for chunk in chunks],
            usage=usage_answer(usage),
        )
        if self.prompt_token_ids is not None:
            answer.prompt_token_ids = list(self.prompt_token_ids)
        return answer

    def _choice(self, chunk: Chunk) -> ChatChoice:
        choice = ChatChoice(
            index=chunk.choice,
            message=AssistantMessage(role="assistant", content=chunk.text, refusal=None),
            logprobs=chat_logprobs(chunk, self.tokenizer),
            finish_reason=finish_word(chunk.finish_reason),
        )
        if self.prompt_token_ids is not None:
            choice.token_ids = list(chunk.token_ids)
        return choice


@dataclass(frozen=True, slots=True)
class ChatStream:
    """The same answer as events: the role of each choice, its text, its end."""

    form: ChatForm
    writer: ChunkWriter
    generation: Generation

    def opening(self) -> str:
        prompt_ids, choices = self.form.prompt_token_ids, range(self.generation.job.num_choices)
        extra = "" if prompt_ids is None else f',"prompt_token_ids":{list(prompt_ids)}'
        role = '{"role":"assistant","content":""}'
        return self._event(0, role, extra=extra) + "".join(self._event(choice, role) for choice in choices[1:])

    def write(self, chunk: Chunk) -> str:
        """The gain of a choice as one event, and its end as another, whose delta is empty."""
        shows_ids = self.form.prompt_token_ids is not None
        events = ""
        if chunk.finish_reason is None or chunk.text or chunk.logprobs or (shows_ids and chunk.token_ids):
            logprobs = chat_logprobs(chunk, self.form.tokenizer)
            events = self._event(
                chunk.choice,
                f'{{"content":{json.dumps(chunk.text)}}}',
                logprobs="null" if logprobs is None else logprobs.model_dump_json(),
                token_ids=f',"token_ids":{list(chunk.token_ids)}' if shows_ids else "",
            )
        if chunk.finish_reason is not None:
            events += self._event(chunk.choice, "{}", finish_reason=f'"{chunk.finish_reason}"')
        return events

    def _event(
        self,
        choice: int,
        delta: str,
        *,
        logprobs: str = "null",
        finish_reason: str = "null",
        token_ids: str = "",
        extra: str = "",
    ) -> str:
        """All strings are JSON; ``token_ids`` and ``extra`` are further members, of the choice and of the chunk."""
        body = f'{{"index":{choice},"delta":{delta},"logprobs":{logprobs},"finish_reason":{finish_reason}{token_ids}}}'
        return self.writer.event(body, self.generation.usage, extra=extra)
