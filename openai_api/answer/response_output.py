"""The output items of a response as they come: messages and calls, each begun, filled and ended.

Owns when an item begins and ends, and which log probabilities belong to a text: those of a call's
tokens are nobody's. Knows no events and no JSON. For one answer; the event loop calls it, and a
worker thread for a large answer that is told as a whole.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.outputs import FinishReason
from gemma3.text.tool_parser import CallDelta, TextDelta, ToolDelta
from openai_api.answer.chunks import Chunk, num_values
from openai_api.answer.logprobs import ChatLogprobsWriter
from openai_api.answer.models import TokenLogprobAnswer
from openai_api.answer.response_models import ItemStatus, OutputCall, OutputMessage, OutputText
from openai_api.answer.tool_calls import CallReader
from openai_api.request.responses_input import item_id


@dataclass(slots=True)
class TextItem:
    """A message that grows. Mutable."""

    id: str
    index: int
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobAnswer] = field(default_factory=list)

    @property
    def part(self) -> OutputText:
        """Its one part, as it is now."""
        return OutputText.model_construct(
            type="output_text", text="".join(self.texts), annotations=[], logprobs=self.logprobs
        )

    def answer(self, status: ItemStatus) -> OutputMessage:
        """As JSON has it; empty while it is in progress."""
        content = [] if status == "in_progress" else [self.part]
        return OutputMessage.model_construct(
            id=self.id, type="message", status=status, role="assistant", content=content
        )


@dataclass(slots=True)
class CallItem:
    """A call that grows. Mutable. ``namespace`` is that of its function, empty for none."""

    id: str
    index: int
    call_id: str
    name: str
    namespace: str
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """As far as they are known."""
        return "".join(self.pieces)

    def answer(self, status: ItemStatus) -> OutputCall:
        """As JSON has it; without arguments while it is in progress."""
        call = OutputCall(
            id=self.id,
            type="function_call",
            status=status,
            call_id=self.call_id,
            name=self.name,
            arguments="" if status == "in_progress" else self.arguments,
        )
        if self.namespace:
            call.namespace = self.namespace
        return call


OutputItem = TextItem | CallItem


@dataclass(frozen=True, slots=True)
class Begun:
    """A new item, empty."""

    item: OutputItem


@dataclass(frozen=True, slots=True)
class Ended:
    """An item that gets no more."""

    item: OutputItem
    status: ItemStatus


@dataclass(frozen=True, slots=True)
class Gained:
    """More text of a message, or more of the arguments of a call."""

    item: OutputItem
    text: str
    logprobs: Sequence[TokenLogprobAnswer] = ()


News = Begun | Gained | Ended


class OutputReader:
    """Reads the one choice of an answer, chunk by chunk. Mutable."""

    def __init__(
        self,
        response_id: str,
        *,
        calls: CallReader | None,
        logprobs: ChatLogprobsWriter,
        namespaces: Mapping[str, str],
    ) -> None:
        """``calls``: None for an answer that calls nothing; ``namespaces`` by name of function."""
        self.items: list[OutputItem] = []
        self.num_values = 0
        self.is_complete = False
        self._response_id = response_id
        self._calls = calls
        self._logprobs = logprobs
        self._namespaces = namespaces
        self._untold: list[TokenLogprobAnswer] = []
        self._num_bytes_ahead = 0  # of the tokens that were told, beyond the text

    def begin(self) -> list[News]:
        """An answer without calls is one message, however short."""
        return [] if self._calls else [self._message()]

    def read(self, chunk: Chunk) -> list[News]:
        """What a chunk brings; after the last one comes ``end``.

        Raises:
            ToolParseError: it is no answer in the form of the checkpoint.
        """
        if chunk.logprobs:
            told = self._logprobs.write(chunk)
            self._untold += () if told is None else told.content
        self.num_values += num_values([chunk])
        deltas: Sequence[ToolDelta] = [TextDelta(chunk.text)] if self._calls is None else self._calls.read(chunk)
        news = [each for delta in deltas for each in self._take(delta)]
        if chunk.finish_reason is not None:
            is_cut = self._calls is not None and self._calls.finish_word(chunk) == "length"
            self.is_complete = chunk.finish_reason is FinishReason.STOP and not is_cut
        return news

    def end(self) -> list[News]:
        """The rest of the last item, and its end."""
        news: list[News] = [] if self.items else [self._message()]
        last = self.items[-1]
        if self._untold and isinstance(last, TextItem):
            news.append(self._text(last, "", len(self._untold)))
        return [*news, Ended(last, self.last_status)]

    @property
    def last_status(self) -> ItemStatus:
        """Of the last item; all others are complete."""
        return "completed" if self.is_complete else "incomplete"

    def answers(self) -> list[OutputMessage | OutputCall]:
        """All items, at the end."""
        ended = [item.answer("completed") for item in self.items[:-1]]
        return [*ended, self.items[-1].answer(self.last_status)]

    def _take(self, delta: ToolDelta) -> list[News]:
        if isinstance(delta, CallDelta):
            self._untold.clear()
            news = [] if delta.name is None else self._begin_call(delta.name)
            item = self.items[-1]
            assert isinstance(item, CallItem)
            item.pieces.append(delta.arguments)
            return [*news, Gained(item, delta.arguments)] if delta.arguments else news
        if not delta.text and not self._untold:
            return []
        begun = [] if self.items and isinstance(self.items[-1], TextItem) else [self._message()]
        item = self.items[-1]
        assert isinstance(item, TextItem)
        return [*begun, self._text(item, delta.text, self._num_of_text(delta.text))]

    def _num_of_text(self, text: str) -> int:
        """How many of the untold tokens wrote ``text``. Those behind it may turn out to be a call's."""
        if self._calls is None or not self._untold:
            return len(self._untold)
        num_missing = len(text.encode("utf-8", "replace")) - self._num_bytes_ahead
        num_tokens = 0
        while num_missing > 0 and num_tokens < len(self._untold):
            num_missing -= len(self._untold[num_tokens].bytes)
            num_tokens += 1
        self._num_bytes_ahead = -num_missing
        return num_tokens

    def _text(self, item: TextItem, text: str, num_tokens: int) -> Gained:
        told, self._untold = self._untold[:num_tokens], self._untold[num_tokens:]
        item.texts.append(text)
        item.logprobs += told
        return Gained(item, text, told)

    def _message(self) -> Begun:
        index = len(self.items)
        item = TextItem(item_id("message", self._response_id, index), index)
        self.items.append(item)
        return Begun(item)

    def _begin_call(self, name: str) -> list[News]:
        index = len(self.items)
        ended: list[News] = [Ended(self.items[-1], "completed")] if self.items else []
        call_id, namespace = f"call_{uuid.uuid4().hex[:24]}", self._namespaces.get(name, "")
        item = CallItem(item_id("function_call", self._response_id, index), index, call_id, name, namespace)
        self.items.append(item)
        return [*ended, Begun(item)]
