"""The answer of ``/v1/responses``, whole or as events.

Owns OpenAI's response object: what is given back of the request, how it ended, its usage. Knows
neither the engine nor the store; whether the response could be kept it is told. Runs on the event
loop; what ends a large answer is written in a worker thread.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from openai_api.answer.chunks import Chunk
from openai_api.answer.generation import Job, Usage
from openai_api.answer.logprobs import ChatLogprobsWriter
from openai_api.answer.response_events import ResponseEvents, json_of
from openai_api.answer.response_models import (
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from openai_api.answer.response_output import OutputReader
from openai_api.answer.tool_calls import CallReader
from openai_api.answer.writer import Head
from openai_api.engine_api import Tokenizer
from openai_api.errors import ApiError
from openai_api.request.responses_chat import functions_of
from openai_api.request.responses_fields import ResponsesRequest, ResponseTool


def response_id(engine_id: str) -> str:
    """OpenAI's form of an id; every request has one of ``PREFIX-`` and 32 digits for the engine."""
    return f"resp_{engine_id.rpartition('-')[2]}"


class ResponseWriter:
    """A ``Writer``. Between the last chunk and ``end`` or ``whole`` stands ``close``. Mutable."""

    def __init__(self, body: ResponsesRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        self._started = started_response(body, job, head)
        self._events = ResponseEvents()
        self._output = OutputReader(
            self._started.id,
            calls=None if job.calls is None else CallReader(job.calls, 1),
            logprobs=ChatLogprobsWriter(tokenizer=tokenizer),
            namespaces={each.definition.name: each.namespace or "" for each in functions_of(body)},
        )
        self._ended: ResponseObject | None = None
        self._closing = ""
        self._ended_json = ""

    @property
    def num_values(self) -> int:
        """How much there is to write of what was read: tokens and log probabilities."""
        return self._output.num_values

    def read(self, chunks: Sequence[Chunk]) -> None:
        """Take in an answer that is not streamed; of a stream there is nothing left to read."""
        if chunks:
            self._output.begin()
        for chunk in chunks:
            self._output.read(chunk)

    def close(self, usage: Usage) -> ResponseObject:
        """The response as it ended; what is said of that is written now, which may be much."""
        self._closing = self._events.of_news(self._output.end())
        is_complete = self._output.is_complete
        self._ended = self._started.model_copy(
            update={
                "status": "completed" if is_complete else "incomplete",
                "completed_at": int(time.time()) if is_complete else None,
                "incomplete_details": None if is_complete else IncompleteDetails(reason="max_output_tokens"),
                "output": self._output.answers(),
                "usage": _usage(usage),
            }
        )
        self._ended_json = json_of(self._ended)
        return self._ended

    @property
    def ended_json(self) -> str:
        """The response as it ended."""
        return self._ended_json

    def not_kept(self) -> None:
        """Say in the answer that nobody will find it again."""
        assert self._ended is not None
        self._ended.store = False
        self._ended_json = json_of(self._ended)

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> ResponseObject:
        """The response, which ``close`` has made."""
        assert self._ended is not None
        return self._ended

    def opening(self, usage: Usage) -> str:
        """It is there, it runs, and unless it may call something its message begins."""
        started = json_of(self._started)
        told = self._events.of_response("created", started) + self._events.of_response("in_progress", started)
        return told + self._events.of_news(self._output.begin())

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """What items gained, with their beginnings and ends."""
        return "".join([self._events.of_news(self._output.read(chunk)) for chunk in chunks])

    def end(self, usage: Usage) -> str:
        """The end of the last item, and the response once more as a whole. No ``[DONE]``."""
        kind = "completed" if self._output.is_complete else "incomplete"
        return self._closing + self._events.of_response(kind, self._ended_json)

    def error(self, error: ApiError) -> str:
        """The response has failed, for those who keep it; and the error, which SDKs raise."""
        begun = "" if self._events.num_told else self._events.of_response("created", json_of(self._started))
        failure = ResponseFailure(code="server_error", message=error.message)
        failed = self._started.model_copy(update={"status": "failed", "error": failure})
        return begun + self._events.of_response("failed", json_of(failed)) + self._events.error(error)


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens, cache_write_tokens=0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def started_response(body: ResponsesRequest, job: Job, head: Head) -> ResponseObject:
    """The response before its first token: what was asked, with defaults filled in."""
    is_parallel = body.parallel_tool_calls is not False if job.calls is None else job.calls.rules.is_parallel
    truncation: Literal["auto", "disabled"] = body.truncation or "disabled"
    return ResponseObject(
        id=response_id(head.id),
        object="response",
        created_at=head.created,
        status="in_progress",
        background=False,
        completed_at=None,
        error=None,
        incomplete_details=None,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        model=head.model,
        output=[],
        parallel_tool_calls=is_parallel,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning={"effort": None, "summary": None},
        safety_identifier=body.safety_identifier,
        service_tier="default",
        store=body.store is not False,
        temperature=job.params.temperature,
        text={"format": _format(body)},
        tool_choice=_tool_choice(body.tool_choice),
        tools=[_tool(tool) for tool in body.tools or ()],
        top_logprobs=body.top_logprobs or 0,
        top_p=job.params.top_p,
        truncation=truncation,
        usage=None,
        user=body.user,
    )


def _tool(tool: ResponseTool) -> dict[str, Any]:
    """With the members that OpenAI's types do not leave out."""
    told = tool.model_dump(exclude_none=True)
    if tool.type == "namespace":
        return {"description": "", "tools": [], **told}
    return {"parameters": None, "strict": None, **told} if tool.type == "function" else told


def _format(body: ResponsesRequest) -> dict[str, Any]:
    """As OpenAI has it: the members of ``json_schema`` beside ``type``."""
    asked = None if body.text is None else body.text.format
    if asked is None:
        return {"type": "text"}
    told = asked.model_dump(by_alias=True, exclude_none=True)
    told |= told.pop("json_schema", {})
    return {"name": "response", **told} if asked.type == "json_schema" else told


def _tool_choice(asked: Any) -> str | dict[str, Any]:
    """As OpenAI has it, whichever form was sent."""
    if asked is None or isinstance(asked, str):
        return {"any": "required"}.get(asked or "auto", asked or "auto")
    inner: Mapping[str, Any] = asked.get("function") or asked.get("allowed_tools") or {}
    kind = asked.get("type")
    if kind in ("auto", "none", "any", "required"):
        return _tool_choice(kind)
    return {**{name: value for name, value in asked.items() if name not in ("function", "allowed_tools")}, **inner}
