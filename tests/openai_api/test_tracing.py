"""OpenTelemetry's traces, as a collector on loopback reads them."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes
from opentelemetry.semconv.attributes import error_attributes
from starlette.types import Scope

from engine.errors import StepError
from openai_api import run
from openai_api.app import create_app
from openai_api.command_line import parse_flags
from openai_api.settings import ServerSettings
from openai_api.tracing import Tracing
from openai_api.transport.request_context import Exchange
from tests.openai_api.collector import Collector, Handler, answer_without_end, collector, hang, take, values
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import JSON, Asgi, chat_body, completion_body, wait_until
from tests.openai_api.test_program import Program, program, ready_line

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Traced(Asgi):
    """An application whose requests are told; ``sent`` ends that and gives what the collector has."""

    def __init__(
        self,
        engine: FakeEngine,
        told: Collector,
        *,
        settings: ServerSettings | None = None,
        flush_timeout_s: float = 15,
    ) -> None:
        super().__init__(engine, settings or ServerSettings())
        self.told = told
        self.tracing = Tracing(f"{told.url}/v1/traces", flush_timeout_s=flush_timeout_s)
        self.app = create_app(engine, self.settings, on_request_end=self.tracing.record)

    def sent(self) -> Collector:
        self.tracing.close()
        return self.told


@contextmanager
def traced(
    engine: FakeEngine,
    answer: Callable[[Collector, Handler], None] = take,
    *,
    settings: ServerSettings | None = None,
    flush_timeout_s: float = 15,
) -> Iterator[Traced]:
    with collector(answer) as told:
        asgi = Traced(engine, told, settings=settings, flush_timeout_s=flush_timeout_s)
        try:
            yield asgi
        finally:
            told.release.set()
            asgi.tracing.close()


def test_nothing_of_an_answer_outlives_its_request(engine: FakeEngine) -> None:
    """An idle connection keeps the scope of its last request."""
    ended: list[Scope] = []

    def note(scope: Scope, _: Exchange) -> None:
        assert scope["answering"].head.model == "gemma-3-270m-it"
        ended.append(scope)

    asgi = Asgi(engine, ServerSettings())
    asgi.app = create_app(engine, asgi.settings, on_request_end=note)
    for stream in (True, False):
        asgi.post(CHAT, chat_body(stream=stream))
    assert ["answering" in scope for scope in ended] == [False, False]


@pytest.fixture
def asgi(engine: FakeEngine) -> Iterator[Traced]:
    with traced(engine) as application:
        yield application


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def only_request(told: Collector) -> Span:
    (span,) = told.requests()
    return span


def test_a_request_and_its_phases(asgi: Traced, engine: FakeEngine) -> None:
    engine.script = Script(text="abc", queue_s=0.03, prefill_s=0.06, token_s=0.02, num_cached_tokens=7)
    answer = asgi.post(CHAT, chat_body(stream=True, max_tokens=9, seed=5, temperature=0.5))
    told = asgi.sent()
    span = only_request(told)
    assert span.name == "chat gemma-3-270m-it"
    assert not span.parent_span_id
    assert values(span) == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "http.response.header.x-request-id": [answer.headers["x-request-id"]],
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gemma3-server",
        "gen_ai.request.model": "gemma-3-270m-it",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.95,
        "gen_ai.request.top_k": 64,
        "gen_ai.request.frequency_penalty": 0.0,
        "gen_ai.request.presence_penalty": 0.0,
        "gen_ai.request.choice.count": 1,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": json.loads(answer.body.split(b"\n")[0][6:])["id"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 17,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 7,
    }
    assert told.resource()["service.name"] == "gemma3-server"
    assert "process" not in str(told.resource())
    phases = told.children(span)
    assert [phase.name for phase in phases] == ["queue", "prefill", "decode"]
    for phase, least_s in zip(phases, (0.03, 0.06, 3 * 0.02), strict=True):
        assert seconds(phase) >= least_s, phase.name
        assert (phase.trace_id, phase.kind) == (span.trace_id, Span.SPAN_KIND_INTERNAL)


def test_the_phases_follow_each_other_inside_their_request(asgi: Traced, engine: FakeEngine) -> None:
    engine.script = Script(text="ab", queue_s=0.01, prefill_s=0.01, token_s=0.005)
    for path, body in ((CHAT, chat_body()), (CHAT, chat_body(stream=True, n=3)), (TEXT, completion_body())):
        assert asgi.post(path, body).status == 200
    told = asgi.sent()
    assert len(told.requests()) == 3
    for span in told.requests():
        times = [span.start_time_unix_nano]
        for phase in told.children(span):
            times += [phase.start_time_unix_nano, phase.end_time_unix_nano]
        assert times == sorted(times)
        assert times[2:5:2] == times[3:6:2], "a phase begins where the one before it ended"
        assert times[-1] <= span.end_time_unix_nano


def test_an_answer_of_several_choices_is_one_request(asgi: Traced) -> None:
    asgi.post(TEXT, completion_body(prompt=["a", "b"], n=2, max_tokens=1))
    told = asgi.sent()
    span = only_request(told)
    assert span.name == "text_completion gemma-3-270m-it"
    attributes = values(span)
    assert attributes["gen_ai.response.finish_reasons"] == ["length"] * 4
    assert attributes["gen_ai.usage.output_tokens"] == 4
    assert attributes["gen_ai.request.choice.count"] == 2
    assert not attributes["gen_ai.request.stream"]
    assert len(told.children(span)) == 3


def test_a_prompt_that_is_only_read_has_no_decode(asgi: Traced) -> None:
    asgi.post(TEXT, completion_body(max_tokens=0, echo=True))
    told = asgi.sent()
    assert [phase.name for phase in told.children(only_request(told))] == ["queue", "prefill"]


def test_names_are_those_of_the_conventions(asgi: Traced, engine: FakeEngine) -> None:
    engine.script = Script(fail=StepError("x"), fail_at=1)
    asgi.post(CHAT, chat_body(seed=1, max_tokens=3))
    known = {
        value
        for module in (gen_ai_attributes, http_attributes, error_attributes)
        for name, value in vars(module).items()
        if isinstance(value, str) and name.isupper()
    }
    names = set(values(only_request(asgi.sent())))
    assert {"error.type", "gen_ai.request.seed", "http.response.header.x-request-id"} <= names
    assert {name.removesuffix(".x-request-id") for name in names} <= known


def test_nothing_of_what_anybody_wrote_is_told(engine: FakeEngine) -> None:
    """Prompts, answers, stop strings, tools, keys, names of users, paths, queries and headers."""
    engine.script = Script(text="my secret answer")
    secret = "my-secret-word"
    key = {"authorization": f"Bearer {secret}", "x-secret": secret, "tracestate": f"a={secret}", **JSON}
    tool = {"type": "function", "function": {"name": "secret", "description": secret, "parameters": {"type": "object"}}}
    bodies: list[tuple[str, dict[str, Any]]] = [
        (CHAT, chat_body(messages=[{"role": "user", "content": secret}], user=secret, stop=["secret"], tools=[tool])),
        (CHAT, chat_body(response_format={"type": "json_object"}, metadata={"secret": secret}, stream=True)),
        (TEXT, completion_body(prompt=secret, suffix=None, echo=True)),
        (TEXT, completion_body(prompt=secret, secret=secret)),
        (TEXT, completion_body(prompt=secret, model=secret)),
        ("/tokenize", {"prompt": secret}),
        (f"/v1/{secret}", {}),
    ]
    with traced(engine, settings=ServerSettings(api_keys=(secret,))) as asgi:
        query = {"query_string": b"q=" + secret.encode()}
        for path, body in bodies:
            asgi.request(
                "POST", path, json.dumps(body).encode(), {**key, "traceparent": f"00-{TRACE}-{PARENT}-01"}, query
            )
        told = asgi.sent()
        assert len(told.requests()) == 6
        assert b"secret" not in b"".join(told.bodies)
        assert "secret" not in "".join(told.heads)


@pytest.mark.parametrize(
    ("traceparent", "is_parent", "is_told"),
    [
        (f"00-{TRACE}-{PARENT}-01", True, True),
        (f"00-{TRACE}-{PARENT}-00", True, False),
        (f"00-{TRACE}-{PARENT}", False, True),
        (f"00-{'0' * 32}-{PARENT}-01", False, True),
        ("x" * 4000, False, True),
        ("\xff-" * 20, False, True),
    ],
)
def test_the_callers_trace_goes_on(asgi: Traced, traceparent: str, is_parent: bool, is_told: bool) -> None:
    """What its sampling left out is left out here too; what is no traceparent begins a trace."""
    answer = asgi.request("POST", CHAT, json.dumps(chat_body()).encode(), {**JSON, "traceparent": traceparent})
    assert answer.status == 200
    told = asgi.sent()
    assert len(told.requests()) == is_told
    for span in told.requests():
        assert (span.trace_id.hex() == TRACE) == is_parent
        assert (span.parent_span_id.hex() == PARENT) == is_parent
        assert len(told.children(span)) == 3


def test_only_work_that_was_let_in_is_told(engine: FakeEngine) -> None:
    """Who has no key fills nobody's disks with traces; a look at the server is no work."""
    with traced(engine, settings=ServerSettings(api_keys=("sesame",))) as asgi:
        asgi.post(CHAT, chat_body())
        key = {"authorization": "Bearer sesame", **JSON}
        for path in ("/health", "/metrics", "/v1/models", "/"):
            asgi.request("GET", path, headers=key)
        asgi.request("POST", "/nowhere", b"{}", key)
        asgi.request("DELETE", CHAT, b"", key)
        asgi.request("POST", "/tokenize", b'{"prompt": "a"}', key)
        span = only_request(asgi.sent())
    assert span.name == "POST /tokenize"
    assert not any(name.startswith("gen_ai") for name in values(span))


def test_how_requests_fail(asgi: Traced, engine: FakeEngine) -> None:
    """The code of the error; the span's own is one that the server is the reason of."""
    expected: list[tuple[str, int, bool, list[str]]] = []

    def ask(body: Any, kind: str, status: int, phases: str, *, is_error: bool, path: str = CHAT) -> None:
        assert asgi.post(path, body).status == status
        expected.append((kind, status, is_error, phases.split()))

    ask(b"{", "invalid_json", 400, "", is_error=False)
    ask(chat_body(model="another"), "model_not_found", 404, "", is_error=False)
    ask(
        chat_body(messages=[{"role": "user", "content": "x" * 5000}]),
        "context_length_exceeded",
        400,
        "",
        is_error=False,
    )
    ask(completion_body(prompt="x" * 5000), "context_length_exceeded", 400, "", is_error=False, path=TEXT)
    engine.script = Script(fail=StepError("x"))
    ask(chat_body(), "step_failed", 500, "queue prefill", is_error=True)
    engine.script = Script(fail=StepError("x"), fail_at=2)
    ask(chat_body(stream=True), "error", 200, "queue prefill decode", is_error=True)
    engine.max_waiting = 0
    ask(chat_body(), "queue_full", 429, "", is_error=False)
    told = asgi.sent()
    seen = [
        (
            values(span)["error.type"],
            values(span)["http.response.status_code"],
            span.status.code == SpanStatus.STATUS_CODE_ERROR,
            [phase.name for phase in told.children(span)],
        )
        for span in told.requests()
    ]
    assert seen == expected


def test_a_queue_that_is_full_loses_spans_and_nothing_else(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUEUE_SIZE", "EXPORT_BATCH_SIZE"):
        monkeypatch.setenv(f"OTEL_BSP_MAX_{name}", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # or its thread would outlive this test
    with traced(engine, hang, flush_timeout_s=0.05) as asgi:
        for _ in range(8):
            assert asgi.post(CHAT, chat_body()).status == 200
        wait_until(lambda: asgi.told.bodies)
        asgi.tracing.close()
        assert not asgi.told.release.is_set(), "the end of the server waited for the collector"
        assert len(asgi.told.spans()) == 4
    assert len(asgi.told.spans()) < 8 * 4


def test_the_answer_of_a_collector_is_not_read(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have no end."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    with traced(engine, answer_without_end) as asgi:
        asgi.post(CHAT, chat_body())
        asgi.tracing.close()
        assert asgi.told.was_cut_off.wait(15)


def test_a_collector_that_is_not_there(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    with collector() as gone:
        pass
    asgi = Traced(engine, gone)
    assert asgi.post(CHAT, chat_body()).status == 200
    asgi.tracing.close()


def leave_and_end(server: Program) -> None:
    """A client leaves in the middle of its answer; then the program ends."""
    with httpx.stream("POST", server.url + CHAT, json=chat_body(stream=True)) as answer:
        next(answer.iter_lines())
    wait_until(lambda: any(record.get("status") == 499 for record in server.log))
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_the_program_tells_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client that left too, and nobody else tells: FastAPI would, asked by a variable. The flag's URL gets the
    usual path, and the variables say the rest.
    """
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ours")
    with collector() as told:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", told.url)
        with program("--otlp-traces-endpoint", told.url, script={"script": {"token_s": 0.02}}) as server:
            ready_line(server)
            leave_and_end(server)
        span = only_request(told)
        attributes = values(span)
        assert attributes["error.type"] == "client_closed_request"
        assert attributes["gen_ai.response.finish_reasons"] == ["abort"]
        assert "http.response.status_code" not in attributes
        assert [phase.name for phase in told.children(span)] == ["queue", "prefill", "decode"]
        assert told.resource()["service.name"] == "mine"
        assert told.heads[0].startswith("/v1/traces\n")
        assert "x-tenant: ours" in told.heads[0]


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "openai_api.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert run.main(["--port", "0", "--otlp-traces-endpoint", "http://localhost:4318"]) == 2
    assert (
        "needs the package opentelemetry.sdk.trace: pip install 'gemma3-270m-server[otel]'" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("HTTPS://Collector.Example/otlp/v1/traces", "https://collector.example/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_where_traces_go(text: str, url: str) -> None:
    assert parse_flags(["--otlp-traces-endpoint", text]).otlp_traces_endpoint == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:4318",
        "grpc://localhost:4317",
        "http://",
        "http://me:key@host",
        "http://host/?key=1",
        "http://a b",
    ],
)
def test_what_is_no_collector(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags(["--otlp-traces-endpoint", text])
    assert "is not a URL such as http://localhost:4318" in capsys.readouterr().err
