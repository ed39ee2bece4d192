"""OpenTelemetry traces: one span a request, with its queue, prefill and decode below it.

Owns the names, after OpenTelemetry's conventions for HTTP and for generative AI, and the thread that
sends spans to a collector. Never a prompt, an answer, a stop string, a key or a path. A request is
told when it has ended, from the times that the metrics have. Imported only where a collector is
named, as OpenTelemetry is an extra. Event loop, but for that thread.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

import gemma3
from openai_api.answer.writer import Answering
from openai_api.metrics import RequestTimer
from openai_api.transport.request_context import CLIENT_CLOSED_REQUEST, Exchange

SERVICE_NAME = "gemma3-server"
# What a collector that does not answer may keep the end of the process waiting.
FLUSH_TIMEOUT_S = 3.0
# All others that generate are chats, whatever API they belong to.
TEXT_COMPLETION_ROUTES = frozenset({"/v1/completions", "/api/generate"})

Attributes = dict[str, str | bool | int | float | list[str]]


class Tracing:
    """Tells a collector of requests; mutable. ``close`` is called once, after the last of them.

    Sampling, the length of the queue, headers, certificates and the service's name are taken from
    OpenTelemetry's own environment variables, ``OTEL_*``. Spans that find the queue full are lost.
    """

    def __init__(self, endpoint: str, *, flush_timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        self._flush_timeout_s = flush_timeout_s
        session = requests.Session()
        session.stream = True  # nobody reads the answer of a collector, which may have no end
        # Of all that OpenTelemetry finds out by itself the command line has keys and paths.
        named = Resource({"service.name": SERVICE_NAME, "service.version": gemma3.__version__})
        self._provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, session=session)))
        self._tracer = self._provider.get_tracer("openai_api", gemma3.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def record(self, scope: Scope, exchange: Exchange) -> None:
        """Tell of a request that has ended: of each POST that was let in, the others do no work."""
        route = getattr(scope.get("route"), "path", None)
        if scope["method"] != "POST" or route is None:
            return
        answering: Answering | None = scope.get("answering")
        clock = _Clock.now()
        attributes = _http_attributes(scope, exchange, route)
        name = f"POST {route}"
        if answering is not None:
            attributes |= _generation_attributes(answering, route)
            name = f"{attributes['gen_ai.operation.name']} {answering.head.model}"
        span = self._tracer.start_span(
            name, self._parent(scope), SpanKind.SERVER, attributes, start_time=clock.as_unix_ns(exchange.started_s)
        )
        if span.is_recording():
            _end_with_error(span, exchange, scope.get("error_code"), answering)
            if answering is not None:
                self._record_phases(span, answering.generation.usage.timer, clock)
        span.end(clock.ended_ns)

    def close(self) -> None:
        """Send what waits; give up after ``flush_timeout_s``."""
        closing = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(self._flush_timeout_s)

    def _parent(self, scope: Scope) -> Context:
        """The caller's span, if its ``traceparent`` names one; ``tracestate`` may hold any text."""
        parent = Headers(scope=scope).get("traceparent")
        return Context() if parent is None else self._propagator.extract({"traceparent": parent})

    def _record_phases(self, span: Span, timer: RequestTimer | None, clock: "_Clock") -> None:
        if timer is None or timer.totals is None:
            return
        context = set_span_in_context(span)
        for phase in _phases(timer):
            child = self._tracer.start_span(phase.name, context, start_time=clock.as_unix_ns(phase.start_s))
            child.end(clock.as_unix_ns(phase.end_s))


@dataclass(frozen=True, slots=True)
class _Clock:
    """When a request ended: ``time.perf_counter`` beside the time of day, of which spans speak."""

    ended_s: float
    ended_ns: int

    @classmethod
    def now(cls) -> "_Clock":
        return cls(time.perf_counter(), time.time_ns())

    def as_unix_ns(self, seconds: float) -> int:
        """Nanoseconds since 1970 of what ``perf_counter`` called ``seconds``."""
        return self.ended_ns - round((self.ended_s - seconds) * 1e9)


@dataclass(frozen=True, slots=True)
class _Phase:
    """A part of a generation, in seconds of ``perf_counter``: [start_s, end_s)."""

    name: str
    start_s: float
    end_s: float


def _phases(timer: RequestTimer) -> Iterator[_Phase]:
    """Each begins where the one before it ended; what never began is left out, and the one in which
    the request failed ends with it.
    """
    yield _Phase("queue", timer.started_s, timer.admitted_s or timer.finished_s)
    if timer.admitted_s:
        yield _Phase("prefill", timer.admitted_s, timer.first_output_s or timer.finished_s)
    if timer.first_output_s:
        yield _Phase("decode", timer.first_output_s, timer.last_output_s)


def _http_attributes(scope: Scope, exchange: Exchange, route: str) -> Attributes:
    attributes: Attributes = {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.header.x-request-id": [exchange.request_id],
    }
    if exchange.status != CLIENT_CLOSED_REQUEST:  # which was never sent
        attributes["http.response.status_code"] = exchange.status
    return attributes


def _generation_attributes(answering: Answering, route: str) -> Attributes:
    head, generation = answering.head, answering.generation
    params, usage, timer = generation.job.params, generation.usage, generation.usage.timer
    attributes: Attributes = {
        "gen_ai.operation.name": "text_completion" if route in TEXT_COMPLETION_ROUTES else "chat",
        "gen_ai.provider.name": SERVICE_NAME,
        "gen_ai.request.model": head.model,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.request.top_k": params.top_k,
        "gen_ai.request.frequency_penalty": params.frequency_penalty,
        "gen_ai.request.presence_penalty": params.presence_penalty,
        "gen_ai.request.choice.count": params.n,
        "gen_ai.request.stream": answering.is_streamed,
        "gen_ai.response.id": head.id,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
    }
    if params.max_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = params.max_tokens
    if params.seed is not None:
        attributes["gen_ai.request.seed"] = params.seed
    if timer is not None and timer.totals is not None:
        attributes["gen_ai.response.finish_reasons"] = list(timer.totals.reasons)
    return attributes


def _end_with_error(span: Span, exchange: Exchange, code: str | None, answering: Answering | None) -> None:
    """Its kind, if it was one: the code of the answer; of what failed behind the head of one, how it
    ended. By the conventions only the server's own errors are the span's.
    """
    if exchange.status == CLIENT_CLOSED_REQUEST:
        span.set_attribute("error.type", "client_closed_request")
        return
    timer = None if answering is None else answering.generation.usage.timer
    reasons = () if timer is None or timer.totals is None else timer.totals.reasons
    cut_off = next((reason for reason in reasons if reason in ("abort", "error")), None)
    if kind := code or cut_off:
        span.set_attribute("error.type", kind)
    if exchange.status >= 500 or (exchange.status < 400 and cut_off):
        span.set_status(Status(StatusCode.ERROR))
