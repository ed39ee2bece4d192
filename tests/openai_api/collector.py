"""A collector of OpenTelemetry's traces on loopback: it reads what an exporter sends, and may behave badly."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Mutable: ``bodies`` are the requests so far, as bytes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.heads: list[str] = []
        self.release = threading.Event()
        self.was_cut_off = threading.Event()

    def spans(self) -> list[Span]:
        """All so far, in the order of their beginnings."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [scope for request in requests for each in request.resource_spans for scope in each.scope_spans]
        return sorted((span for scope in scopes for span in scope.spans), key=lambda span: span.start_time_unix_nano)

    def requests(self) -> list[Span]:
        return [span for span in self.spans() if span.kind == Span.SPAN_KIND_SERVER]

    def children(self, parent: Span) -> list[Span]:
        return [span for span in self.spans() if span.parent_span_id == parent.span_id]

    def resource(self) -> dict[str, Any]:
        return values(ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans[0].resource)


def values(span: Any) -> dict[str, Any]:
    """The attributes as plain values."""
    return {each.key: _plain(each.value) for each in span.attributes}


def _plain(value: Any) -> Any:
    if value.HasField("array_value"):
        return [_plain(each) for each in value.array_value.values]
    return getattr(value, value.WhichOneof("value"))


Handler = http.server.BaseHTTPRequestHandler


def take(_collector: Collector, handler: Handler) -> None:
    """Answer as a collector does."""
    handler.send_response(200)
    handler.send_header("content-length", "0")
    handler.end_headers()


def hang(collector: Collector, _handler: Handler) -> None:
    """No answer until it is let go."""
    collector.release.wait(60)


def answer_without_end(collector: Collector, handler: Handler) -> None:
    """Far more bytes than anybody needs, as fast as they are taken."""
    handler.send_response(503)
    handler.end_headers()
    try:
        for _ in range(1000):
            handler.wfile.write(b"x" * 65536)
    except OSError:
        collector.was_cut_off.set()


@contextmanager
def collector(answer: Callable[[Collector, Handler], None] = take) -> Iterator[Collector]:
    """One that listens, in threads of its own."""

    class Receiver(Handler):
        def do_POST(self) -> None:  # noqa: N802 (the name is http.server's)
            running.heads.append(f"{self.path}\n{self.headers}")
            running.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            with suppress(OSError):
                answer(running, self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    running = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield running
    finally:
        running.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
