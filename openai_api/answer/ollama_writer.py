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
from openai_api.answer.models import ChatLogprobs
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


class _Lines:
    """Writes the lines of one stream but the last. What all of them share is encoded once, here."""

    def __init__(self, head: Head) -> None:
        self._head = _compact(envelope(head)).removesuffix("}") + ","

    def line(self, gain: str, logprobs: ChatLogprobs | None) -> str:
        """``gain`` is a member as JSON."""
        told = "" if logprobs is None else f',"logprobs":{_compact(logprobs.model_dump()["content"])}'
        return f'{self._head}{gain}{told},"done":false}}\n'


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


class OllamaChatWriter:
    """A ``Writer``. Mutable: it remembers how the answer ended."""

    def __init__(self, _body: OllamaChatRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        self._head = head
        self._lines = _Lines(head)
        self._logprobs = ChatLogprobsWriter(tokenizer=tokenizer)
        self._calls = None if job.calls is None else _Calls(CallReader(job.calls, job.num_choices))
        self._done_reason = "stop"

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> OllamaChatAnswer:
        """The one object."""
        (chunk,) = chunks
        message = self._message(chunk)
        return self._answer(message, usage, self._logprobs.write(chunk))

    def opening(self, usage: Usage) -> str:
        """Nothing, ``""``: the first line is the first text."""
        return ""

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """A line for each chunk that tells something."""
        return "".join([self._event(chunk) for chunk in chunks])

    def end(self, usage: Usage) -> str:
        """The line with ``done``."""
        message = OllamaAnswerMessage(role="assistant", content="")
        return self._answer(message, usage, None).model_dump_json(exclude_unset=True) + "\n"

    def error(self, error: ApiError) -> str:
        """Ollama's error object as the last line."""
        return error_line(error)

    def _event(self, chunk: Chunk) -> str:
        message, logprobs = self._message(chunk), self._logprobs.write(chunk)
        if not (message.content or message.tool_calls or (logprobs is not None and logprobs.content)):
            return ""
        return self._lines.line(f'"message":{message.model_dump_json(exclude_unset=True)}', logprobs)

    def _message(self, chunk: Chunk) -> OllamaAnswerMessage:
        if self._calls is None:
            message = OllamaAnswerMessage(role="assistant", content=chunk.text)
            word: str | None = finish_word(chunk.finish_reason)
        else:
            message, word = self._calls.read(chunk), self._calls.reader.finish_word(chunk)
        if word is not None:
            self._done_reason = "length" if word == "length" else "stop"
        return message

    def _answer(self, message: OllamaAnswerMessage, usage: Usage, logprobs: ChatLogprobs | None) -> OllamaChatAnswer:
        answer = OllamaChatAnswer(**envelope(self._head), **end_of(self._done_reason, usage), message=message)
        if logprobs is not None:
            answer.logprobs = logprobs.content
        return answer


class OllamaGenerateWriter:
    """A ``Writer``. Mutable: it remembers how the answer ended, and its tokens."""

    def __init__(self, body: OllamaGenerateRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        self._head = head
        self._lines = _Lines(head)
        self._logprobs = ChatLogprobsWriter(tokenizer=tokenizer)
        self._context = None if body.raw else list(job.prompts[0])
        self._done_reason = "stop"

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> OllamaGenerateAnswer:
        """The one object."""
        (chunk,) = chunks
        self._take(chunk)
        return self._answer(chunk.text, usage, self._logprobs.write(chunk))

    def opening(self, usage: Usage) -> str:
        """Nothing, ``""``: the first line is the first text."""
        return ""

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """A line for each chunk that tells something."""
        return "".join([self._event(chunk) for chunk in chunks])

    def end(self, usage: Usage) -> str:
        """The line with ``done``, and with the conversation as token ids, unless it is raw."""
        return self._answer("", usage, None).model_dump_json(exclude_unset=True) + "\n"

    def error(self, error: ApiError) -> str:
        """Ollama's error object as the last line."""
        return error_line(error)

    def _event(self, chunk: Chunk) -> str:
        self._take(chunk)
        logprobs = self._logprobs.write(chunk)
        if not (chunk.text or (logprobs is not None and logprobs.content)):
            return ""
        return self._lines.line(f'"response":{json.dumps(chunk.text)}', logprobs)

    def _take(self, chunk: Chunk) -> None:
        if self._context is not None:
            self._context.extend(chunk.token_ids)
        self._done_reason = finish_word(chunk.finish_reason) or self._done_reason

    def _answer(self, text: str, usage: Usage, logprobs: ChatLogprobs | None) -> OllamaGenerateAnswer:
        answer = OllamaGenerateAnswer(**envelope(self._head), **end_of(self._done_reason, usage), response=text)
        if logprobs is not None:
            answer.logprobs = logprobs.content
        if self._context is not None:
            answer.context = self._context
        return answer


def error_line(error: ApiError) -> str:
    """Ollama's error object as a line."""
    return error_body(error, Wire.OLLAMA).decode() + "\n"


def _compact(value: Mapping[str, object] | Sequence[object]) -> str:
    return json.dumps(value, separators=(",", ":"))
