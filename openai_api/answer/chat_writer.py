"""The answer of ``/v1/chat/completions``, whole or as events.

Owns OpenAI's shape of a chat answer: the role of each choice, its text, its end. Knows neither the
request nor the engine. Runs on the event loop; a whole answer with many log probabilities is
written in a worker thread.
"""

import json
from collections.abc import Sequence

from openai_api.answer.chunks import Chunk, forced_flags
from openai_api.answer.generation import Job, Usage
from openai_api.answer.logprobs import ChatLogprobsWriter
from openai_api.answer.models import AssistantMessage, ChatChoice, ChatCompletion, FinishWord
from openai_api.answer.prompt_logprobs import prompt_logprobs_answer
from openai_api.answer.tool_calls import CallReader
from openai_api.answer.writer import ChunkWriter, Head, finish_word, usage_answer
from openai_api.engine_api import Tokenizer
from openai_api.errors import ApiError
from openai_api.request.schemas import ChatCompletionRequest

_ROLE = '{"role":"assistant","content":""}'


class ChatWriter:
    """A ``Writer``. Each choice of a stream begins with its role and ends with an empty delta."""

    def __init__(self, body: ChatCompletionRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        self._head = head
        self._tokenizer = tokenizer
        self._logprobs = ChatLogprobsWriter(
            tokenizer=tokenizer,
            lists_chosen=bool(body.logprob_token_ids),
            as_token_ids=bool(body.return_tokens_as_token_ids),
        )
        self._num_choices = job.num_choices
        self._prompt_token_ids = job.prompts[0] if body.return_token_ids else None
        self._shows_forced = bool(body.return_forced)
        self._calls = None if job.calls is None else CallReader(job.calls, job.num_choices)
        self._chunk_writer = ChunkWriter(head.envelope("chat.completion.chunk"), body.stream_options)

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> ChatCompletion:
        """The body, with the prompt's token ids and log probabilities beside the choices if they are
        asked for.
        """
        answer = ChatCompletion(
            **self._head.envelope("chat.completion"),
            choices=[self._choice(chunk) for chunk in chunks],
            usage=usage_answer(usage),
        )
        if self._prompt_token_ids is not None:
            answer.prompt_token_ids = list(self._prompt_token_ids)
        if chunks[0].prompt_logprobs is not None:
            answer.prompt_logprobs = prompt_logprobs_answer(chunks[0], self._tokenizer)
        return answer

    def _choice(self, chunk: Chunk) -> ChatChoice:
        finish_reason: FinishWord | None
        if self._calls is None:
            message = AssistantMessage(role="assistant", content=chunk.text, refusal=None)
            finish_reason = finish_word(chunk.finish_reason)
        else:
            message, finish_reason = self._calls.message(chunk), self._calls.finish_word(chunk)
        logprobs = self._logprobs.write(chunk)
        choice = ChatChoice(index=chunk.choice, message=message, logprobs=logprobs, finish_reason=finish_reason)
        if self._prompt_token_ids is not None:
            choice.token_ids = list(chunk.token_ids)
        if self._shows_forced:
            choice.forced = forced_flags(chunk, num_tokens=len(chunk.token_ids))
        return choice

    def opening(self, usage: Usage) -> str:
        """One event a choice with its role; the first has the prompt's token ids if they are asked
        for.
        """
        prompt_ids = self._prompt_token_ids
        extra = "" if prompt_ids is None else f',"prompt_token_ids":{list(prompt_ids)}'
        others = (self._event(choice, _ROLE, usage) for choice in range(1, self._num_choices))
        return self._event(0, _ROLE, usage, extra=extra) + "".join(others)

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """Text of server-sent events: the gain of a choice is one, its end another, whose delta is
        empty, ``{}``.
        """
        if self._calls is not None:
            return "".join([self._events_of_calls(chunk, usage, self._calls) for chunk in chunks])
        return "".join([self._events(chunk, usage) for chunk in chunks])

    def end(self, usage: Usage) -> str:
        """The totals, if they are asked for, and ``[DONE]``."""
        return self._chunk_writer.end(usage)

    def error(self, error: ApiError) -> str:
        """OpenAI's error object as the last event."""
        return self._chunk_writer.error(error)

    def _events(self, chunk: Chunk, usage: Usage) -> str:
        of_tokens = self._of_tokens(chunk)
        events = ""
        if chunk.finish_reason is None or chunk.text or chunk.logprobs or (of_tokens and chunk.token_ids):
            logprobs = self._logprobs.write(chunk)
            events = self._event(
                chunk.choice,
                f'{{"content":{json.dumps(chunk.text)}}}',
                usage,
                logprobs="null" if logprobs is None else logprobs.model_dump_json(),
                of_tokens=of_tokens,
            )
        if chunk.finish_reason is not None:
            events += self._event(chunk.choice, "{}", usage, finish_reason=f'"{chunk.finish_reason}"')
        return events

    def _events_of_calls(self, chunk: Chunk, usage: Usage, calls: CallReader) -> str:
        """As ``_events``: what is told of tokens stands beside the first delta, or alone."""
        deltas, logprobs = calls.deltas(chunk), self._logprobs.write(chunk)
        of_tokens = self._of_tokens(chunk) if chunk.token_ids else ""
        if not deltas and (of_tokens or chunk.logprobs):
            deltas = ["{}"]
        told = "null" if logprobs is None else logprobs.model_dump_json()
        events = [
            self._event(chunk.choice, delta, usage, logprobs="null" if i else told, of_tokens="" if i else of_tokens)
            for i, delta in enumerate(deltas)
        ]
        word = calls.finish_word(chunk)
        end = "" if word is None else self._event(chunk.choice, "{}", usage, finish_reason=f'"{word}"')
        return "".join([*events, end])

    def _of_tokens(self, chunk: Chunk) -> str:
        """The members of a choice, each after a comma, that have an entry for each token; those that are asked for."""
        ids = f',"token_ids":{list(chunk.token_ids)}' if self._prompt_token_ids is not None else ""
        if not self._shows_forced:
            return ids
        return f'{ids},"forced":{json.dumps(forced_flags(chunk, num_tokens=len(chunk.token_ids)))}'

    def _event(
        self,
        choice: int,
        delta: str,
        usage: Usage,
        *,
        logprobs: str = "null",
        finish_reason: str = "null",
        of_tokens: str = "",
        extra: str = "",
    ) -> str:
        """All strings are JSON; ``of_tokens`` and ``extra`` are further members, of the choice and
        of the chunk.
        """
        body = f'{{"index":{choice},"delta":{delta},"logprobs":{logprobs},"finish_reason":{finish_reason}{of_tokens}}}'
        return self._chunk_writer.event(body, usage, extra=extra)
