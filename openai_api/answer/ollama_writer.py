"""The answers of Ollama's ``/api/chat`` and ``/api/generate``, whole or as lines of JSON.

Owns Ollama's shapes: a line for each gain, a last one with counts and durations, calls of tools told
whole. Knows neither the request's fields nor the engine. Runs on the event loop; a whole answer with
many log probabilities is written in a worker thread.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gemma3.text.tool_parser import CallDelta, TextDelta
from openai_api.answer.chunks import Chunk
from openai_api.answer.event_stream import Framing
from openai_api.answer.generation import Job, Usage
from openai_api.answer.logprobs import ChatLogprobsWriter
from openai_api.answer.ollama_models import (
    OllamaAnswerMessage,
    OllamaChatAnswer,
    OllamaFunction,
    OllamaGenerateAnswer,
    OllamaToolCall,
)
from openai_api.answer.tool_calls import CallReader, new_call_id
from openai_api.answer.writer import Head, finish_word
from openai_api.engine_api import Tokenizer
from openai_api.errors import ApiError, error_body
from openai_api.request.ollama_fields import OllamaChatRequest, OllamaGenerateRequest
from openai_api.wires import Wire

# Nothing may stand between two lines: Ollama's own clients take each for an object.
JSON_LINES = Framing(b"application/x-ndjson")


def rfc3339(unix_s: int) -> str:
    """``2026-11-26T17:52:05Z``."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def envelope(head: Head) -> dict[str, Any]:
    """What every line has."""
    return {"model": head.model, "created_at": rfc3339(head.created)}


def end_of(done_reason: str, usage: Usage) -> dict[str, Any]:
    """What the last line has: durations in nanoseconds, which add up, and counts of tokens.

    From the request's start to its admission, to its first token, and to now, when the answer is
    written: never 0, as clients divide by the last.
    """
    timer, now_s = usage.timer, time.perf_counter()
    times_s = (now_s,) * 4 if timer is None else (timer.started_s, timer.admitted_s, timer.first_output_s, now_s)
    started, admitted, first, now = (int((each_s or now_s) * 1e9) for each_s in times_s)
    return {
        "done": True,
        "done_reason": done_reason,
        "total_duration": now - started,
        "load_duration": admitted - started,
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": first - admitted,
        "eval_count": usage.completion_tokens,
        "eval_duration": now - first,
    }


@dataclass(slots=True)
class _Calls:
    """Puts calls together, as Ollama tells them whole. Mutable; ``_open`` is the name and the pieces
    of the arguments of the call that goes on.
    """

    reader: CallReader
    _open: list[str] = field(default_factory=list)

    def read(self, chunk: Chunk) -> OllamaAnswerMessage:
        """What a chunk brings, text and finished calls.

        One that is cut off is not told: its arguments are no object. ``done_reason`` is ``length``.
        """
        message = OllamaAnswerMessage(role="assistant", content="")
        calls: list[OllamaToolCall] = []
        for delta in self.reader.read(chunk):
            if isinstance(delta, TextDelta):
                message.content += delta.text
            else:
                self._take(delta, calls)
        if chunk.finish_reason is not None:
            self._finish(calls)
        if calls:
            message.tool_calls = calls
        return message

    def _take(self, delta: CallDelta, calls: list[OllamaToolCall]) -> None:
        if delta.name is not None:
            self._finish(calls)
            self._open = [delta.name]
        self._open.append(delta.arguments)

    def _finish(self, calls: list[OllamaToolCall]) -> None:
        if not self._open:
            return
        name, *pieces = self._open
        self._open = []
        try:
            arguments = json.loads("".join(pieces))
        except ValueError:
            return
        calls.append(OllamaToolCall(id=new_call_id(), function=OllamaFunction(name=name, arguments=arguments)))


class _LineWriter:
    """What the writers of both ways share. Mutable: it remembers how the answer ended."""

    def __init__(self, head: Head, tokenizer: Tokenizer) -> None:
        self._envelope = envelope(head)
        self._begin = _compact(self._envelope).removesuffix("}") + ","  # of all lines, encoded once
        self._logprobs = ChatLogprobsWriter(tokenizer=tokenizer)
        self._done_reason = "stop"

    def opening(self, usage: Usage) -> str:
        """Nothing, ``""``: the first line is the first text."""
        return ""

    def error(self, error: ApiError) -> str:
        """Ollama's error object as the last line."""
        return error_body(error, Wire.OLLAMA).decode() + "\n"

    def _line(self, gain: str, chunk: Chunk) -> str:
        """One that is not the last; ``gain`` is a member as JSON."""
        logprobs = self._logprobs.write(chunk)
        told = "" if logprobs is None else f',"logprobs":{_compact(logprobs.model_dump()["content"])}'
        return f'{self._begin}{gain}{told},"done":false}}\n'

    def _last(self, usage: Usage, chunk: Chunk | None) -> dict[str, Any]:
        """Members of the last object; those of a whole answer have the log probabilities of its ``chunk``."""
        logprobs = None if chunk is None else self._logprobs.write(chunk)
        told = {} if logprobs is None else {"logprobs": logprobs.content}
        return {**self._envelope, **end_of(self._done_reason, usage), **told}


class OllamaChatWriter(_LineWriter):
    """A ``Writer``."""

    def __init__(self, _body: OllamaChatRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        super().__init__(head, tokenizer)
        self._calls = None if job.calls is None else _Calls(CallReader(job.calls, job.num_choices))

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> OllamaChatAnswer:
        """The one object."""
        (chunk,) = chunks
        message = self._message(chunk)
        return OllamaChatAnswer(**self._last(usage, chunk), message=message)

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """A line for each chunk that tells something."""
        return "".join([self._event(chunk) for chunk in chunks])

    def end(self, usage: Usage) -> str:
        """The line with ``done``."""
        message = OllamaAnswerMessage(role="assistant", content="")
        answer = OllamaChatAnswer(**self._last(usage, None), message=message)
        return answer.model_dump_json(exclude_unset=True) + "\n"

    def _event(self, chunk: Chunk) -> str:
        message = self._message(chunk)
        if not (message.content or message.tool_calls or chunk.logprobs):
            return ""
        return self._line(f'"message":{message.model_dump_json(exclude_unset=True)}', chunk)

    def _message(self, chunk: Chunk) -> OllamaAnswerMessage:
        if self._calls is None:
            message = OllamaAnswerMessage(role="assistant", content=chunk.text)
            word: str | None = finish_word(chunk.finish_reason)
        else:
            message, word = self._calls.read(chunk), self._calls.reader.finish_word(chunk)
        if word is not None:
            self._done_reason = "length" if word == "length" else "stop"
        return message


class OllamaGenerateWriter(_LineWriter):
    """A ``Writer``; it remembers the tokens, too: ``context`` is the conversation, but for a raw text."""

    def __init__(self, body: OllamaGenerateRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        super().__init__(head, tokenizer)
        self._context = None if body.raw else list(job.prompts[0])

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> OllamaGenerateAnswer:
        """The one object."""
        (chunk,) = chunks
        self._take(chunk)
        return self._answer(chunk.text, usage, chunk)

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """A line for each chunk that tells something."""
        return "".join([self._event(chunk) for chunk in chunks])

    def end(self, usage: Usage) -> str:
        """The line with ``done`` and ``context``."""
        return self._answer("", usage, None).model_dump_json(exclude_unset=True) + "\n"

    def _event(self, chunk: Chunk) -> str:
        self._take(chunk)
        if not (chunk.text or chunk.logprobs):
            return ""
        return self._line(f'"response":{json.dumps(chunk.text)}', chunk)

    def _take(self, chunk: Chunk) -> None:
        if self._context is not None:
            self._context.extend(chunk.token_ids)
        self._done_reason = finish_word(chunk.finish_reason) or self._done_reason

    def _answer(self, text: str, usage: Usage, chunk: Chunk | None) -> OllamaGenerateAnswer:
        answer = OllamaGenerateAnswer(**self._last(usage, chunk), response=text)
        if self._context is not None:
            answer.context = self._context
        return answer


def _compact(value: Mapping[str, object] | Sequence[object]) -> str:
    return json.dumps(value, separators=(",", ":"))
