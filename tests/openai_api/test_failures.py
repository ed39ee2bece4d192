"""What the engine's failures become, before the first byte and after it; loading, draining, full, broken."""

import json
import logging
from typing import Any

import pytest

from engine.engine_info import EngineStatus
from engine.errors import (
    DeadlineError,
    EngineError,
    EngineNotReadyError,
    QueueFullError,
    QueueTimeoutError,
    RequestError,
    StepError,
)
from engine.sampling_params import SamplingParamsError
from openai_api.errors import ApiError, error_body
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import Asgi, chat_body, completion_body, events_of
from tests.openai_api.test_access import assert_error

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SECRET = "s3cr3t of a library"
# (what the engine raises, status, type, code, the header that must be there)
FAILURES: list[tuple[Exception, int, str, str, str]] = [
    (RequestError("No.", param="prompt"), 400, "invalid_request_error", "invalid_value", ""),
    (
        RequestError("Long.", code="context_length_exceeded"),
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "",
    ),
    (SamplingParamsError("seed", 1, "another"), 400, "invalid_request_error", "invalid_value", ""),
    (QueueFullError("Full.", retry_after_s=9), 429, "rate_limit_error", "queue_full", "retry-after"),
    (QueueTimeoutError("Waited."), 503, "server_error", "queue_timeout", "retry-after"),
    (EngineNotReadyError("Draining."), 503, "server_error", "not_ready", "retry-after"),
    (DeadlineError("Late."), 504, "server_error", "deadline_exceeded", "x-should-retry"),
    (StepError(SECRET), 500, "server_error", "step_failed", "x-should-retry"),
    (EngineError(SECRET), 500, "server_error", "internal_error", "x-should-retry"),
    (RuntimeError(SECRET), 500, "server_error", "internal_error", "x-should-retry"),
    (KeyError(SECRET), 500, "server_error", "internal_error", "x-should-retry"),
]
BODIES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat_body()),
    (CHAT, chat_body(stream=True)),
    (COMPLETIONS, completion_body()),
    (COMPLETIONS, completion_body(stream=True)),
    (COMPLETIONS, completion_body(prompt=["a", "b"])),
    (COMPLETIONS, completion_body(prompt=["a", "b"], stream=True)),
]


@pytest.mark.parametrize(("error", "status", "kind", "code", "header"), FAILURES, ids=lambda v: type(v).__name__)
def test_a_failure_before_the_first_byte(
    asgi: Asgi, engine: FakeEngine, error: Exception, status: int, kind: str, code: str, header: str
) -> None:
    engine.script = Script(fail=error)
    for path, body in BODIES:
        answer = asgi.post(path, body)
        assert answer.status == status
        assert (answer.error["type"], answer.error["code"]) == (kind, code)
        assert answer.headers["content-type"] == "application/json"
        assert (not header) or header in answer.headers
        assert SECRET.encode() not in answer.body
        assert not engine.running
        assert not engine.waiting


@pytest.mark.parametrize(("error", "_status", "kind", "code", "_header"), FAILURES, ids=lambda v: type(v).__name__)
def test_a_failure_after_the_first_byte(
    asgi: Asgi, engine: FakeEngine, error: Exception, _status: int, kind: str, code: str, _header: str
) -> None:
    """One event with the error, then the end: no ``[DONE]``, which would mean that all went well."""
    engine.script = Script(fail=error, fail_at=3)
    for path, body in BODIES:
        answer = asgi.post(path, body)
        if not body.get("stream"):
            assert answer.error["code"] == code
            continue
        assert answer.status == 200
        *chunks, last = events_of(answer.body)
        assert len(chunks) >= 3
        assert all("error" not in json.loads(chunk) for chunk in chunks)
        assert set(json.loads(last)) == {"error"}
        details = json.loads(last)["error"]
        assert set(details) == {"message", "type", "param", "code"}
        assert (details["type"], details["code"]) == (kind, code)
        assert SECRET not in last
        assert not engine.running


def test_retry_after_is_what_clients_obey(asgi: Asgi, engine: FakeEngine) -> None:
    for seconds, sent in ((0, "1"), (1, "1"), (9, "9"), (120, "120"), (121, "120"), (-5, "1")):
        engine.script = Script(fail=QueueFullError("Full.", retry_after_s=seconds))
        assert asgi.post(CHAT, chat_body()).headers["retry-after"] == sent


def test_errors_are_small_whatever_is_in_them() -> None:
    for text in ("x" * 10_000, "\U0001f642" * 10_000, "\x00" * 10_000, '"\\' * 10_000):
        body = error_body(ApiError(400, text, code="invalid_value", param=text))
        assert len(body) <= 4096
        json.loads(body)


def test_a_full_queue_is_answered_before_anything_is_read(asgi: Asgi, engine: FakeEngine) -> None:
    engine.max_waiting = 0
    for path in (CHAT, COMPLETIONS):
        answer = asgi.post(path, b"this is not even JSON")
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (429, "queue_full", "7")
    assert engine.rendered == []
    assert asgi.post("/tokenize", {"prompt": "x"}).status == 200


@pytest.mark.parametrize("status", [EngineStatus.LOADING, EngineStatus.DRAINING, EngineStatus.DEAD])
def test_an_engine_that_is_not_ready(asgi: Asgi, engine: FakeEngine, status: EngineStatus) -> None:
    engine.status = status
    del engine.info  # not known while loading: nobody may ask for it
    health = asgi.get("/health")
    assert (health.status, health.error["code"], health.headers["retry-after"]) == (503, "not_ready", "5")
    assert status.value in health.error["message"]
    live = asgi.get("/live")
    assert live.status == (503 if status is EngineStatus.DEAD else 200)
    for method, path in (
        ("POST", CHAT),
        ("POST", COMPLETIONS),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/x"),
        ("POST", "/api/chat"),
        ("POST", "/api/generate"),
        ("POST", "/api/show"),
        ("POST", "/api/pull"),
        ("GET", "/api/tags"),
        ("GET", "/api/ps"),
    ):
        answer = asgi.request(method, path, b"{}", {"content-type": "application/json"})
        assert_error(answer, 503, "not_ready", "server_error")
        assert answer.headers["retry-after"] == "5"
    for path in ("/metrics", "/v1/capabilities", "/", "/api/version"):
        assert asgi.get(path).status == 200


def test_ready(asgi: Asgi) -> None:
    for path in ("/health", "/live"):
        answer = asgi.get(path)
        assert (answer.status, answer.json) == (200, {"status": "ready"})
        assert "retry-after" not in answer.headers


def test_the_deadline_of_a_request(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(request_timeout_s=0.15))
    for script in (Script(token_s=0.05), Script(queue_s=5), Script(prefill_s=5)):
        engine.script = script
        answer = asgi.post(CHAT, chat_body())
        assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
        streamed = asgi.post(CHAT, chat_body(stream=True))
        if script.token_s:
            assert json.loads(events_of(streamed.body)[-1])["error"]["code"] == "deadline_exceeded"
        else:
            assert streamed.status == 504
        assert not engine.running
        assert not engine.waiting
    assert len(engine.aborted) == 6


def test_a_request_that_ends_just_in_time(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(request_timeout_s=5))
    engine.script = Script(token_s=0.001)
    assert asgi.post(CHAT, chat_body()).status == 200


def test_keep_alive_comments_while_nothing_comes(engine: FakeEngine) -> None:
    """In the queue, in prefill and between tokens; the events around them are as ever."""
    asgi = Asgi(engine, ServerSettings(keep_alive_interval_s=0.05))
    for script in (
        Script(text="ab", queue_s=0.18),
        Script(text="ab", prefill_s=0.18),
        Script(text="a", token_s=0.09),
    ):
        engine.script = script
        answer = asgi.post(CHAT, chat_body(stream=True))
        num_comments = answer.body.count(b": keep-alive\n")
        assert 1 <= num_comments <= 4
        assert b": keep-alive\n\n" not in answer.body  # an event without data, to some clients
        assert events_of(answer.body)[-1] == "[DONE]"
    engine.script = Script(token_s=0.005)
    assert b": keep-alive" not in asgi.post(CHAT, chat_body(stream=True)).body


def test_an_error_after_a_keep_alive_is_an_event(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(keep_alive_interval_s=0.03))
    engine.script = Script(prefill_s=0.1, fail=StepError("x"))
    answer = asgi.post(CHAT, chat_body(stream=True))
    assert answer.status == 200
    assert answer.body.startswith(b": keep-alive\n")
    (event,) = events_of(answer.body)
    assert json.loads(event)["error"]["code"] == "step_failed"


def test_one_bad_prompt_of_many_ends_them_all(asgi: Asgi, engine: FakeEngine) -> None:
    engine.scripts = {"bad": Script(fail=StepError("x"), fail_at=2), "good": Script(token_s=0.05)}
    answer = asgi.post(COMPLETIONS, completion_body(prompt=["good", "bad", "good"]))
    assert answer.status == 500
    assert len(engine.aborted) == 3
    assert not engine.running


def test_an_unexpected_error_is_logged_without_what_it_says(
    asgi: Asgi, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script = Script(fail=RuntimeError(SECRET))
    with caplog.at_level(logging.INFO):
        assert asgi.post(CHAT, chat_body()).status == 500
    records = [record for record in caplog.records if record.getMessage() == "unexpected_error"]
    assert len(records) == 1
    fields: dict[str, Any] = records[0].fields  # type: ignore[attr-defined]
    assert fields["error"] == "RuntimeError"
    assert any("fake_engine.py" in line for line in fields["at"])
    assert SECRET not in caplog.text
