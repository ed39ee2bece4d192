"""Large answers as JSON, in pieces.

Owns the cuts: no call into pydantic writes more than some thousand values, as it would keep the
event loop and the engine waiting however long it takes (20 log probabilities for each of 6,000
tokens: 80 ms), also from a worker thread. The bytes are those of ``model_dump_json``. Knows no
endpoint. Any thread; the response is sent on the event loop.
"""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_api.answer.models import Answer, ChatChoice, CompletionChoice, LegacyLogprobs, json_response
from openai_api.answer.response_models import OutputCall, OutputMessage, OutputText

_MAX_ITEMS = 128
_MAY_BE_LARGE = ChatChoice | CompletionChoice | OutputMessage | OutputCall | OutputText
_MAX_CHARS = 32 * 1024
_BLOCK_BYTES = 64 * 1024


def json_pieces(value: object) -> Iterator[bytes]:
    """``value`` as JSON, without members that were never set; lists and strings in parts."""
    if isinstance(value, BaseModel):
        yield from _members(value)
    elif isinstance(value, list):
        yield from _items(value)
    elif isinstance(value, str) and len(value) > _MAX_CHARS:
        parts = (value[at : at + _MAX_CHARS] for at in range(0, len(value), _MAX_CHARS))
        yield b'"'
        yield from (to_json(part)[1:-1] for part in parts)
        yield b'"'
    else:
        yield to_json(value, inf_nan_mode="null")


def _members(model: BaseModel) -> Iterator[bytes]:
    before = b"{"
    for name in type(model).model_fields:
        if name in model.model_fields_set:
            yield before + to_json(name) + b":"
            yield from json_pieces(getattr(model, name))
            before = b","
    yield b"}" if before == b"," else b"{}"


def _items(items: list[object]) -> Iterator[bytes]:
    """Choices and what responses have in their place one by one, as each may be large, everything else by the hundred."""
    if not items:
        yield b"[]"
        return
    one_by_one = isinstance(items[0], _MAY_BE_LARGE)
    before = b"["
    for at in range(0, len(items), 1 if one_by_one else _MAX_ITEMS):
        yield before
        if one_by_one:
            yield from json_pieces(items[at])
        else:
            yield to_json(items[at : at + _MAX_ITEMS], inf_nan_mode="null")[1:-1]
        before = b","
    yield b"]"


def json_text(logprobs: LegacyLogprobs) -> str:
    """``logprobs`` as JSON; a prompt's may be many."""
    if len(logprobs.tokens) <= _MAX_ITEMS:
        return logprobs.model_dump_json()
    return b"".join(json_pieces(logprobs)).decode()


def large_json_response(answer: Answer, *, size: int, small_size: int) -> Response:
    """``json_response``; above ``small_size`` (of whatever there is most in it) made and sent in
    pieces.
    """
    return json_response(answer) if size <= small_size else _BlocksResponse(_blocks(answer))


def _blocks(answer: Answer) -> list[bytes]:
    """Blocks of about 64 KiB."""
    blocks, block = [], bytearray()
    for piece in json_pieces(answer):
        block += piece
        if len(block) >= _BLOCK_BYTES:
            blocks.append(bytes(block))
            block.clear()
    return [*blocks, bytes(block)]


class _BlocksResponse(Response):
    """Status 200 with JSON that was made before; the connection takes blocks at its own pace."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        length = str(sum(map(len, blocks)))
        super().__init__(media_type="application/json", headers={"content-length": length})
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for block in self._blocks:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
