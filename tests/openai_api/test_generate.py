"""A third API is a renderer of the request and a writer of the answer: the handler does the rest."""

import inspect
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from types import FrameType
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import StepError
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from openai_api.answer.chunks import Chunk
from openai_api.answer.generation import Job, Usage
from openai_api.answer.models import Answer
from openai_api.answer.writer import Head
from openai_api.app_state import AppState
from openai_api.endpoints.generate import Endpoint, answer
from openai_api.engine_api import Tokenizer
from openai_api.request.request_field import RequestField, Support
from openai_api.request.schemas import GenerationRequest
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import Asgi


class OtherRequest(GenerationRequest):
    text: str


class OtherAnswer(Answer):
    said: str
    num_tokens: int


class OtherWriter:
    """One line of JSON for each piece of text, as other APIs have it."""

    def __init__(self, body: OtherRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        self.head = head

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> OtherAnswer:
        return OtherAnswer(said=chunks[0].text, num_tokens=usage.completion_tokens)

    def opening(self, usage: Usage) -> str:
        return f'{{"begin": "{self.head.id[:6]}"}}\n'

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        return "".join(json.dumps({"piece": chunk.text}) + "\n" for chunk in chunks)

    def end(self, usage: Usage) -> str:
        return f'{{"end": {usage.completion_tokens}}}\n'


async def render(body: OtherRequest, request_id: str, app_state: AppState) -> Job:
    prompt = app_state.engine.tokenizer.encode(body.text, add_bos=True)
    return Job(request_id=request_id, prompts=(prompt,), params=SamplingParams(max_tokens=None))


OTHER = Endpoint(
    body=OtherRequest,
    fields=(RequestField("text", Support.EXACT, "required"),),
    id_prefix="other",
    render=render,
    writer=OtherWriter,
)
BODY = {"model": MODEL_ID, "text": "Hi"}


@pytest.fixture
def other(engine: FakeEngine) -> Asgi:
    asgi = Asgi(engine, ServerSettings())

    async def serve(request: Request) -> Response:
        return await answer(request, OTHER)

    asgi.app.add_api_route("/other", serve, methods=["POST"], response_model=None)
    return asgi


def test_whole_and_streamed(other: Asgi) -> None:
    whole = other.post("/other", BODY)
    assert whole.json == {"said": TEXT, "num_tokens": len(TEXT.encode()) + 1}
    lines = [json.loads(line) for line in other.post("/other", {**BODY, "stream": True}).body.decode().splitlines()]
    assert lines[0] == {"begin": "other-"}
    assert "".join(line["piece"] for line in lines[1:-1]) == TEXT
    assert lines[-1] == {"end": whole.json["num_tokens"]}


def test_what_the_handler_refuses(other: Asgi, engine: FakeEngine) -> None:
    assert other.post("/other", {**BODY, "model": "x"}).status == 404
    assert other.post("/other", {**BODY, "no_such": 1}).error["code"] == "unknown_parameter"
    assert other.post("/other", {**BODY, "temperature": 3}).error["param"] == "temperature"
    engine.script = Script(fail=StepError("x"))
    assert other.post("/other", BODY).error["code"] == "step_failed"


def test_a_token_passes_one_async_generator_of_this_package(other: Asgi, engine: FakeEngine) -> None:
    """``Generation.chunks`` on top of the engine's own; another one would cost each token a microsecond or two."""
    depths: list[int] = []
    outputs = engine._outputs

    async def watched(*args: Any) -> AsyncGenerator[RequestOutput, None]:
        async for output in outputs(*args):
            depths.append(_num_generators())
            yield output

    engine._outputs = watched  # type: ignore[method-assign]
    other.post("/other", {**BODY, "stream": True})
    assert set(depths) == {1}


def _num_generators() -> int:
    """Async generators of ``openai_api`` on the stack that drives the engine."""
    frame: FrameType | None = sys._getframe()
    found = 0
    while frame is not None:
        is_generator = frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR
        found += bool(is_generator and "/openai_api/answer/" in frame.f_code.co_filename)
        frame = frame.f_back
    return found
