"""What the writers of all endpoints share: the envelope of an answer, its usage, and the JSON of
one chunk.

Owns the seam ``Writer`` between an endpoint's form and the code that runs it. Knows nothing of
sockets or of the engine. The text of a chunk is put together by hand: it is the way of every token.
Runs on the event loop; a large answer as a whole is written in a worker thread.
"""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from engine.engine_info import ModelInfo
from engine.outputs import FinishReason
from openai_api.answer.chunks import Chunk
from openai_api.answer.generation import Generation, Usage
from openai_api.answer.models import Answer, UsageAnswer
from openai_api.errors import ApiError, error_body
from openai_api.request.schemas import StreamOptions


class Writer(Protocol):
    """How an endpoint writes one answer, whole or as server-sent events.

    For one request; it may count as it writes.
    """

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> Answer:
        """The body of an answer that is not streamed; ``chunks`` has one for each choice, in their
        order.
        """

    def opening(self, usage: Usage) -> str:
        """The text of the events before the first chunk, perhaps none, in the form of server-sent
        events.
        """

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """The text of the events for what one output of the engine brought, the way of every token;
        empty while all of it may be the beginning of a call.
        """

    def end(self, usage: Usage) -> str:
        """The text of the events after the last chunk, as the totals in tokens and a mark of the
        end.
        """

    def error(self, error: ApiError) -> str:
        """The text of the last event of a stream that fails after its start."""


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer and every chunk of one request has in common.

    ``created`` is in unix seconds.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str

    def envelope(self, kind: str) -> dict[str, Any]:
        """The members of ``models.Envelope`` in its order; ``kind`` is OpenAI's ``object``."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What the scope of a request has under ``answering`` once it is being answered: for those who
    tell of it when it has ended.
    """

    head: Head
    generation: Generation
    is_streamed: bool


def new_head(id_prefix: str, info: ModelInfo, *, model: str) -> Head:
    """A head with a new id, ``PREFIX-`` and 32 hexadecimal digits, created now; ``model`` is the name
    that the client has for it.
    """
    return Head(f"{id_prefix}-{uuid.uuid4().hex}", int(time.time()), model, info.system_fingerprint)


class ChunkWriter:
    """Writes the chunks of one stream as events. What all of them share is encoded once, here.

    ``include_usage`` adds ``usage: null`` to every chunk and a last chunk with the totals; with
    ``continuous_usage_stats`` every chunk has the usage so far.
    """

    def __init__(self, envelope: Mapping[str, object], options: StreamOptions | None) -> None:
        self._head = "data: " + _compact(envelope).removesuffix("}") + ',"choices":['
        self._includes_usage = bool(options and options.include_usage)
        self._has_usage_in_all = self._includes_usage and bool(options and options.continuous_usage_stats)
        self._tail = ',"usage":null}\n\n' if self._includes_usage else "}\n\n"

    def event(self, choice: str, usage: Usage, *, extra: str = "") -> str:
        """One chunk around the JSON of one choice; ``extra`` is more members of the chunk, each
        after a comma.
        """
        tail = _usage_tail(usage) if self._has_usage_in_all else self._tail
        return f"{self._head}{choice}]{extra}{tail}"

    def error(self, error: ApiError) -> str:
        """OpenAI's error object as an event; no ``[DONE]`` follows it."""
        return f"data: {error_body(error).decode()}\n\n"

    def end(self, usage: Usage) -> str:
        """The totals, if they are asked for, and OpenAI's mark of the end, ``[DONE]``."""
        totals = f"{self._head}]{_usage_tail(usage)}" if self._includes_usage else ""
        return totals + "data: [DONE]\n\n"


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _usage_tail(usage: Usage) -> str:
    return f',"usage":{_compact(usage_dict(usage))}}}\n\n'


def usage_dict(usage: Usage) -> dict[str, Any]:
    """OpenAI's ``usage`` object, all of it in tokens."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.accepted_prediction_tokens,
            "rejected_prediction_tokens": usage.rejected_prediction_tokens,
        },
    }


def usage_answer(usage: Usage) -> UsageAnswer:
    """The same object as a part of a whole answer."""
    return UsageAnswer.model_validate(usage_dict(usage))


def finish_word(reason: FinishReason | None) -> Literal["stop", "length"] | None:
    """OpenAI's word; ``None`` for a choice that goes on."""
    match reason:
        case FinishReason.STOP:
            return "stop"
        case FinishReason.LENGTH:
            return "length"
    return None
