"""What one streamed token costs the event loop: CPU time of its thread, over a real socket, with an engine that costs little."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Sequence

import httpx
import uvicorn

from engine.caller import ANYBODY, Caller
from engine.outputs import FinishReason, RequestOutput, SequenceDelta
from engine.sampling_params import SamplingParams
from openai_api.app import create_app
from openai_api.run import server_config
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import chat_body, events_of, wait_until

NUM_TOKENS = 2_000
LIMIT_US = 150.0


class FastEngine(FakeEngine):
    async def generate(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prediction_token_ids: Sequence[int] = (),
        caller: Caller = ANYBODY,
        is_further_prompt: bool = False,
        is_streamed: bool = True,
    ) -> AsyncGenerator[RequestOutput, None]:
        for left in range(NUM_TOKENS - 1, -1, -1):
            await asyncio.sleep(0)
            reason = None if left else FinishReason.LENGTH
            delta = SequenceDelta(0, " hello", (5,), finish_reason=reason)
            yield RequestOutput(request_id, (delta,), finished=left == 0, num_prompt_tokens=1)


def test_a_streamed_token_is_cheap() -> None:
    settings = ServerSettings()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(create_app(FastEngine(), settings), settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        assert thread.ident is not None
        clock = time.pthread_getcpuclockid(thread.ident)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
        costs_us = [_cost_us(clock, url) for _ in range(3)]
    finally:
        server.should_exit = True
        thread.join()
    print(f"\nevent loop: {min(costs_us):.1f} us of CPU per streamed token")
    assert min(costs_us) <= LIMIT_US


def _cost_us(clock: int, url: str) -> float:
    before_s = time.clock_gettime(clock)
    answer = httpx.post(url, json=chat_body(stream=True), timeout=60)
    after_s = time.clock_gettime(clock)
    assert len(events_of(answer.text)) == NUM_TOKENS + 3
    return (after_s - before_s) / NUM_TOKENS * 1e6
