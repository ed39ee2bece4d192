"""The events of a streamed response: OpenAI's names, members and order.

Owns the numbers of events and their text, each with a line that names it. Knows nothing of when
something happens, which ``response_output`` says. For one stream; the event loop calls it, and a
worker thread for what ends a large answer.
"""

import json
from collections.abc import Sequence

from openai_api.answer.json_pieces import json_pieces
from openai_api.answer.models import Answer, TokenLogprobAnswer
from openai_api.answer.response_output import Begun, CallItem, Ended, Gained, News, OutputItem, TextItem
from openai_api.errors import ApiError

_EMPTY_PART = '{"type":"output_text","text":"","annotations":[],"logprobs":[]}'


def json_of(answer: Answer) -> str:
    """``answer`` as JSON, written in pieces."""
    return b"".join(json_pieces(answer)).decode()


class ResponseEvents:
    """Mutable: it counts the events."""

    def __init__(self) -> None:
        self.num_told = 0

    def of_response(self, kind: str, response: str) -> str:
        """``response.created`` and all others about the whole; ``response`` is its JSON."""
        return self._event(f"response.{kind}", f'"response":{response}')

    def of_news(self, news: Sequence[News]) -> str:
        """What tells of these, in their order."""
        return "".join([self._of(each) for each in news])

    def error(self, error: ApiError) -> str:
        """OpenAI's ``error``, whose members are also in an object as SDKs look for it."""
        members = {"code": error.code, "message": error.message, "param": error.param}
        nested = json.dumps({"type": error.type, **members})
        return self._event("error", f'{json.dumps(members)[1:-1]},"error":{nested}')

    def _of(self, news: News) -> str:
        match news:
            case Gained():
                return self._gained(news)
            case Begun():
                return self._begun(news.item)
            case Ended():
                return self._ended(news)

    def _gained(self, news: Gained) -> str:
        """The way of every token."""
        delta = f'{_place(news.item)},"delta":{json.dumps(news.text)}'
        if isinstance(news.item, CallItem):
            return self._event("response.function_call_arguments.delta", delta)
        logprobs = _logprobs(news.logprobs) if news.logprobs else "[]"
        return self._event("response.output_text.delta", f'{delta},"content_index":0,"logprobs":{logprobs}')

    def _begun(self, item: OutputItem) -> str:
        members = f'"output_index":{item.index},"item":{json_of(item.answer("in_progress"))}'
        added = self._event("response.output_item.added", members)
        if isinstance(item, CallItem):
            return added
        part = f'{_place(item)},"content_index":0,"part":{_EMPTY_PART}'
        return added + self._event("response.content_part.added", part)

    def _ended(self, news: Ended) -> str:
        item = news.item
        inner = self._text_done(item) if isinstance(item, TextItem) else self._arguments_done(item)
        members = f'"output_index":{item.index},"item":{json_of(item.answer(news.status))}'
        return inner + self._event("response.output_item.done", members)

    def _text_done(self, item: TextItem) -> str:
        part, place = item.part, f'{_place(item)},"content_index":0'
        text = f'"text":{json.dumps(part.text)},"logprobs":{_logprobs(part.logprobs)}'
        done = self._event("response.output_text.done", f"{place},{text}")
        return done + self._event("response.content_part.done", f'{place},"part":{json_of(part)}')

    def _arguments_done(self, item: CallItem) -> str:
        told = f'"name":{json.dumps(item.name)},"arguments":{json.dumps(item.arguments)}'
        return self._event("response.function_call_arguments.done", f"{_place(item)},{told}")

    def _event(self, kind: str, members: str) -> str:
        number, self.num_told = self.num_told, self.num_told + 1
        return f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":{number},{members}}}\n\n'


def _place(item: OutputItem) -> str:
    return f'"item_id":"{item.id}","output_index":{item.index}'


def _logprobs(entries: Sequence[TokenLogprobAnswer]) -> str:
    return b"".join(json_pieces(list(entries))).decode()
