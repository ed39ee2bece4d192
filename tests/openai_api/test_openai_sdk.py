"""The official client against a live server, unmodified but for its ``base_url``."""

import time
from collections.abc import Iterator

import openai
import pytest

from engine.errors import DeadlineError, QueueFullError, StepError
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import MESSAGES, SharedServer, shared_server, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[SharedServer]:
    with shared_server(ServerSettings(api_keys=("secret",))) as shared:
        yield shared


@pytest.fixture
def client(server: SharedServer, engine: FakeEngine) -> Iterator[openai.OpenAI]:
    live = server.use(engine)
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="secret", timeout=20) as sdk:
        yield sdk


def chat(client: openai.OpenAI, **fields: object) -> object:
    return client.chat.completions.create(model=MODEL_ID, messages=MESSAGES, **fields)  # type: ignore[call-overload]


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL_ID,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        logprobs=True,
        top_logprobs=2,
        n=2,
        seed=1,
        stop=["zzz"],
        logit_bias={"5": 1},
        prediction={"type": "content", "content": TEXT},
        extra_body={"top_k": 5, "min_p": 0.1},
    )
    assert [choice.message.content for choice in answer.choices] == [TEXT, f"1. {TEXT}"]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert bytes(b for entry in logprobs.content[:-1] for b in entry.bytes or []).decode() == TEXT
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.accepted_prediction_tokens == 0
    assert answer._request_id is not None


def test_chat_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL_ID,
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == 29


def test_completions(client: openai.OpenAI, engine: FakeEngine) -> None:
    ids = engine.tokenizer.encode("ab")
    answer = client.completions.create(model=MODEL_ID, prompt=[ids, ids], echo=True, logprobs=1, max_tokens=0)
    assert [choice.text for choice in answer.choices] == ["ab", "ab"]
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.token_logprobs is not None
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    stream = client.completions.create(model=MODEL_ID, prompt="x", max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Hello"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL_ID]
    assert client.models.retrieve(MODEL_ID).owned_by == "google"


def test_errors_are_the_sdks_exceptions(client: openai.OpenAI, engine: FakeEngine) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        chat(client, temperature=3)
    assert (bad.value.code, bad.value.param) == ("invalid_value", "temperature")
    with pytest.raises(openai.BadRequestError, match="Unsupported parameter: 'web_search_options'"):
        chat(client, web_search_options={"search_context_size": "low"})
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.AuthenticationError):
        chat(client.with_options(api_key="wrong"))
    engine.script = Script(fail=DeadlineError("Late."))
    with pytest.raises(openai.InternalServerError):
        chat(client)
    assert len(engine.calls) == 1


def test_a_500_is_not_tried_again(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = Script(fail=StepError("x"))
    with pytest.raises(openai.InternalServerError):
        chat(client)
    assert len(engine.calls) == 1


def test_a_full_queue_is_tried_again_when_the_server_says(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = Script(fail=QueueFullError("Full.", retry_after_s=1))
    begin = time.monotonic()
    with pytest.raises(openai.RateLimitError):
        chat(client.with_options(max_retries=1))
    assert time.monotonic() - begin >= 1
    assert len(engine.calls) == 2


def test_an_error_in_a_stream_is_raised(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = Script(fail=StepError("x"), fail_at=2)
    stream = chat(client, stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)  # type: ignore[call-overload]
    assert caught.value.code == "step_failed"


def test_closing_a_stream_aborts_it(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = Script(token_s=0.05)
    stream = client.chat.completions.create(model=MODEL_ID, messages=[{"role": "user", "content": "Hi"}], stream=True)
    next(iter(stream))
    stream.close()
    wait_until(lambda: engine.aborted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_raw_responses_have_our_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL_ID, messages=[{"role": "user", "content": "Hi"}], extra_headers={"x-request-id": "mine"}
    )
    assert raw.headers["x-request-id"] == "mine"
    assert int(raw.headers["openai-processing-ms"]) >= 0


def test_a_stream_with_keep_alives(engine: FakeEngine) -> None:
    settings = ServerSettings(keep_alive_interval_s=0.03)
    with shared_server(settings) as shared:
        live = shared.use(engine)
        engine.script = Script(text="ab", prefill_s=0.1, token_s=0.1)
        with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", timeout=20) as sdk:
            chunks = list(sdk.chat.completions.create(model=MODEL_ID, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ab"
