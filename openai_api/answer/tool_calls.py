"""Calls of tools in a chat answer, whole or as deltas.

Owns OpenAI's shapes of them, the newer one and that of ``function_call``, and the reason of an end
that is a call. What the model wrote is read by ``gemma3.text.tool_parser``. Runs on the event loop;
whole answers with much in them in a worker thread.
"""

import json
import uuid
from collections.abc import Sequence

from engine.outputs import FinishReason
from gemma3.text.tool_parser import CallDelta, TextDelta, ToolDelta, ToolParser
from openai_api.answer.chunks import Chunk
from openai_api.answer.models import AssistantMessage, FinishWord, FunctionCallAnswer, ToolCallAnswer
from openai_api.request.tools import CallPlan


class CallReader:
    """Reads the choices of one answer, chunk by chunk. Mutable."""

    def __init__(self, plan: CallPlan, num_choices: int) -> None:
        self._is_old = plan.is_old
        self._parsers = [ToolParser(plan.form, plan.rules, names=plan.names) for _ in range(num_choices)]

    def read(self, chunk: Chunk) -> list[ToolDelta]:
        """What a choice gained; with its last chunk, all that was held back.

        Raises:
            ToolParseError: it is no answer in the form of the checkpoint.
        """
        parser = self._parsers[chunk.choice]
        deltas = parser.push(chunk.text)
        return deltas if chunk.finish_reason is None else deltas + parser.finish()

    def finish_word(self, chunk: Chunk) -> FinishWord | None:
        """OpenAI's word for the end of a choice; a call that is cut off, by whatever, is one of ``length``."""
        parser = self._parsers[chunk.choice]
        if chunk.finish_reason is FinishReason.STOP and not parser.is_cut:
            calls: FinishWord = "function_call" if self._is_old else "tool_calls"
            return calls if parser.num_calls else "stop"
        return None if chunk.finish_reason is None else "length"

    def stop_string(self, chunk: Chunk) -> str | None:
        """The stop string that ended the text of a choice, if one did."""
        return self._parsers[chunk.choice].stop_match

    def message(self, chunk: Chunk) -> AssistantMessage:
        """The message of a choice that is told as a whole."""
        deltas = self.read(chunk)
        text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        calls = _joined([delta for delta in deltas if isinstance(delta, CallDelta)])
        message = AssistantMessage(role="assistant", content=text if text or not calls else None, refusal=None)
        if calls and self._is_old:
            message.function_call = calls[0]
        elif calls:
            message.tool_calls = [ToolCallAnswer(id=new_call_id(), type="function", function=call) for call in calls]
        return message

    def deltas(self, chunk: Chunk) -> list[str]:
        """The JSON of each delta that a chunk brings."""
        return [self._delta(delta) for delta in self.read(chunk)]

    def _delta(self, delta: ToolDelta) -> str:
        if isinstance(delta, TextDelta):
            return f'{{"content":{json.dumps(delta.text)}}}'
        function: dict[str, str] = {"arguments": delta.arguments}
        if delta.name is not None:
            function = {"name": delta.name, **function}
        if self._is_old:
            return _compact({"function_call": function})
        begun = {} if delta.name is None else {"id": new_call_id(), "type": "function"}
        return _compact({"tool_calls": [{"index": delta.index, **begun, "function": function}]})


def _joined(deltas: Sequence[CallDelta]) -> list[FunctionCallAnswer]:
    calls: list[FunctionCallAnswer] = []
    for delta in deltas:
        if delta.name is not None:
            calls.append(FunctionCallAnswer(name=delta.name, arguments=""))
        calls[-1].arguments += delta.arguments
    return calls


def new_call_id() -> str:
    """A new name for a call, as OpenAI's look."""
    return f"call_{uuid.uuid4().hex[:24]}"


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
