"""The answer of ``/v1/messages``, whole or as events.

Owns Anthropic's shape of an answer: blocks of text and of calls, one open at a time, and why it
ended. Knows neither the request's messages nor the engine. Runs on the event loop.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from engine.outputs import FinishReason
from gemma3.text.tool_parser import CallDelta, TextDelta, ToolDelta
from openai_api.answer.anthropic_models import (
    AnthropicMessageAnswer,
    AnthropicUsage,
    StopReason,
    TextBlockAnswer,
    ToolUseBlockAnswer,
)
from openai_api.answer.chunks import Chunk
from openai_api.answer.event_stream import Framing
from openai_api.answer.generation import Job, Usage
from openai_api.answer.tool_calls import CallReader
from openai_api.answer.writer import Head
from openai_api.engine_api import Tokenizer
from openai_api.errors import ApiError, error_body
from openai_api.request.anthropic_fields import MessagesRequest
from openai_api.wires import Wire


def _event(data: Mapping[str, object]) -> str:
    """Named by the type of its data, as Anthropic's clients tell events apart."""
    return f"event: {data['type']}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


ANTHROPIC_EVENTS = Framing(b"text/event-stream", _event({"type": "ping"}).encode())


class AnthropicWriter:
    """A ``Writer`` of one choice. Mutable: it counts the blocks of a stream and remembers its end."""

    def __init__(self, body: MessagesRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        self._head = head
        self._counts_cached = body.marks_a_prefix
        self._stops = frozenset(body.stop_sequences or ())
        self._max_tokens = job.params.max_tokens or 0
        self._calls = None if job.calls is None else CallReader(job.calls, job.num_choices)
        self._has_begun = False
        self._num_blocks = 0
        self._open: type[ToolDelta] | None = None  # the kind of the last block, while it grows
        self._last: Chunk | None = None

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> AnthropicMessageAnswer:
        """The body; an empty text is no block."""
        (chunk,) = chunks
        content = _blocks(self._deltas(chunk))
        reason, stop_sequence = self._stop_reason(chunk, usage), self._stop_sequence(chunk)
        return AnthropicMessageAnswer(
            **self._envelope(),
            content=content,
            stop_reason=reason,
            stop_sequence=stop_sequence,
            usage=self._usage(usage),
        )

    def opening(self, usage: Usage) -> str:
        """Nothing, ``""``: the first event tells how much of the prompt was found in the cache."""
        return ""

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """``message_start`` with the first chunk, then blocks as they grow."""
        (chunk,) = chunks
        start = "" if self._has_begun else self._start(usage)
        self._has_begun, self._last = True, chunk
        return start + "".join([self._grow(delta) for delta in self._deltas(chunk)])

    def end(self, usage: Usage) -> str:
        """Why it ended, with the totals in tokens, and ``message_stop``."""
        assert self._last is not None, "no answer is without a last chunk"
        delta = {
            "stop_reason": self._stop_reason(self._last, usage),
            "stop_sequence": self._stop_sequence(self._last),
        }
        totals = self._usage(usage).model_dump()
        told = _event({"type": "message_delta", "delta": delta, "usage": totals})
        return self._close() + told + _event({"type": "message_stop"})

    def error(self, error: ApiError) -> str:
        """Anthropic's error object as the last event."""
        return f"event: error\ndata: {error_body(error, Wire.ANTHROPIC).decode()}\n\n"

    def _envelope(self) -> dict[str, Any]:
        own_id = f"msg_{self._head.id.rpartition('-')[2]}"  # the engine's has a dash
        return {"id": own_id, "type": "message", "role": "assistant", "model": self._head.model}

    def _usage(self, usage: Usage) -> AnthropicUsage:
        num_cached = usage.cached_tokens if self._counts_cached else 0
        return AnthropicUsage(
            input_tokens=usage.prompt_tokens - num_cached,
            cache_creation_input_tokens=0,
            cache_read_input_tokens=num_cached,
            output_tokens=usage.completion_tokens,
        )

    def _start(self, usage: Usage) -> str:
        message = {
            **self._envelope(),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(usage).model_dump(),
        }
        return _event({"type": "message_start", "message": message})

    def _deltas(self, chunk: Chunk) -> Sequence[ToolDelta]:
        if self._calls is not None:
            return self._calls.read(chunk)
        return [TextDelta(chunk.text)] if chunk.text else []

    def _grow(self, delta: ToolDelta) -> str:
        """A text, or the beginning of a call, closes the block before it unless that is its own."""
        begins = delta.name is not None if isinstance(delta, CallDelta) else self._open is not TextDelta
        opened = self._close() + self._begin(delta) if begins else ""
        if isinstance(delta, TextDelta):
            return opened + self._delta({"type": "text_delta", "text": delta.text})
        return opened + self._delta({"type": "input_json_delta", "partial_json": delta.arguments})

    def _begin(self, delta: ToolDelta) -> str:
        block: dict[str, object] = {"type": "text", "text": ""}
        if isinstance(delta, CallDelta):
            block = {"type": "tool_use", "id": _new_id(), "name": delta.name, "input": {}}
        self._open = type(delta)
        self._num_blocks += 1
        return _event({"type": "content_block_start", "index": self._num_blocks - 1, "content_block": block})

    def _delta(self, delta: Mapping[str, str]) -> str:
        return _event({"type": "content_block_delta", "index": self._num_blocks - 1, "delta": delta})

    def _close(self) -> str:
        if self._open is None:
            return ""
        self._open = None
        return _event({"type": "content_block_stop", "index": self._num_blocks - 1})

    def _stop_reason(self, chunk: Chunk, usage: Usage) -> StopReason:
        if self._stop_sequence(chunk) is not None:
            return "stop_sequence"
        word = None if self._calls is None else self._calls.finish_word(chunk)
        if word == "tool_calls":
            return "tool_use"
        if word == "length" or chunk.finish_reason is FinishReason.LENGTH:
            has_room = usage.completion_tokens < self._max_tokens and chunk.finish_reason is FinishReason.LENGTH
            return "model_context_window_exceeded" if has_room else "max_tokens"
        return "end_turn"

    def _stop_sequence(self, chunk: Chunk) -> str | None:
        """The engine tells which one matched, or, where the grammar of calls has them, their reader."""
        stop = chunk.stop_reason if self._calls is None else self._calls.stop_string(chunk)
        return stop if isinstance(stop, str) and stop in self._stops else None


def _blocks(deltas: Sequence[ToolDelta]) -> list[TextBlockAnswer | ToolUseBlockAnswer]:
    """Deltas of one kind next to each other are one block; a call begins where it is named."""
    blocks: list[list[ToolDelta]] = []
    for delta in deltas:
        if not blocks or type(blocks[-1][0]) is not type(delta) or (isinstance(delta, CallDelta) and delta.name):
            blocks.append([])
        blocks[-1].append(delta)
    return [_block(block) for block in blocks]


def _block(deltas: Sequence[ToolDelta]) -> TextBlockAnswer | ToolUseBlockAnswer:
    if isinstance(deltas[0], TextDelta):
        text = "".join([delta.text for delta in deltas if isinstance(delta, TextDelta)])
        return TextBlockAnswer(type="text", text=text)
    arguments = "".join([delta.arguments for delta in deltas if isinstance(delta, CallDelta)])
    return ToolUseBlockAnswer(type="tool_use", id=_new_id(), name=deltas[0].name or "", input=_input(arguments))


def _input(arguments: str) -> dict[str, Any]:
    """Of a call that is cut off, what Anthropic's clients make of its pieces: the complete members."""
    value = from_json(arguments, allow_partial=True) if arguments else {}
    assert isinstance(value, dict), "the grammar of a call allows an object alone"
    return value


def _new_id() -> str:
    return f"toolu_{uuid.uuid4().hex[:24]}"
