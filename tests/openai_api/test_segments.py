"""How bytes are cut into segments changes nothing: the same requests get the same answers."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from uvicorn.server import ServerState

from openai_api.app import create_app
from openai_api.run import server_config
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import chat_body
from tests.openai_api.raw_http import GET_HEALTH, JSON_HEAD, chunked, post, sized

OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
STREAM = post("/v1/chat/completions", chat_body(stream=True, max_tokens=3))
BYTES = {
    "length, chunks, nothing": (sized() + chunked(trailers=b"Authorization: x\r\n") + GET_HEALTH, [200, 200, 200]),
    "offers": (
        sized(head=JSON_HEAD + OFFER) + chunked(head=JSON_HEAD + OFFER) + GET_HEALTH[:-2] + OFFER + b"\r\n",
        [200, 200, 200],
    ),
    "blank lines and HEAD": (
        b"\r\n\r\n" + b"HEAD /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"\r\n" + GET_HEALTH,
        [404, 200],
    ),
    "a stream and more": (STREAM + GET_HEALTH + sized(), [200, 200, 200]),
    "HTTP/1.0": (STREAM.replace(b"/1.1", b"/1.0") + GET_HEALTH, [200]),
    "garbage behind": (GET_HEALTH + STREAM + b"garbage\r\n\r\n" + GET_HEALTH, [200, 200, 400]),
    "an odd coding": (GET_HEALTH + JSON_HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + GET_HEALTH, [200, 400]),
    "a bad chunk": (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n" + GET_HEALTH, [400]),
    "a proxy": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n" + GET_HEALTH, [405]),
    "another protocol": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + GET_HEALTH, [400]),
    "expectation": (sized(head=JSON_HEAD + b"Expect: 100-continue\r\n") + GET_HEALTH, [200, 200]),
}


class Wire(asyncio.Transport):
    """The other end is never slow."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def write_eof(self) -> None:
        self.is_over = True

    close = abort = write_eof

    def is_closing(self) -> bool:
        return self.is_over

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def sent_for(segments: Sequence[bytes]) -> bytes:
    """What the server sends, without what differs from one answer to the next."""
    engine, settings = FakeEngine(), ServerSettings()
    config = server_config(create_app(engine, settings), settings)
    config.load()
    state, wire = ServerState(), Wire()
    protocol = config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg, operator]
    protocol.connection_made(wire)
    for segment in segments:
        protocol.data_received(segment)
        await asyncio.sleep(0)
    while state.tasks:
        await asyncio.sleep(0.001)
    protocol.connection_lost(None)
    volatile = rb"(req_|chatcmpl-)[0-9a-f]+|openai-processing-ms: \d+|\"created\": ?\d+|HTTP/1.1 100 Continue\r\n\r\n"
    return re.sub(volatile, b"", wire.sent)


@pytest.mark.parametrize(("data", "statuses"), BYTES.values(), ids=BYTES)
def test_segments_change_nothing(data: bytes, statuses: list[int]) -> None:

    async def compare() -> None:
        whole = await sent_for([data])
        assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", whole)] == statuses
        assert await sent_for([data[i : i + 1] for i in range(len(data))]) == whole
        for cut in range(1, len(data), len(data) // 16):
            assert await sent_for([data[:cut], data[cut:]]) == whole, cut

    asyncio.run(compare())
