"""Prometheus metrics, named as vLLM names them, with the prefix ``gemma3:``.

Owns one registry for each app. Counters and gauges of the engine are read when they are scraped;
histograms are filled by ``answer.generation``. Knows no endpoint. Runs on the event loop.
"""

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.engine_info import EngineStats
from engine.outputs import RequestOutput

PREFIX = "gemma3:"
# A 270M model writes a token in 1 to 50 ms and answers at once or after a queue: finer at the
# bottom than vLLM's.
TOKEN_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
N_BUCKETS = (1, 2, 5, 10, 20, 50)
LENGTH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


class Metrics:
    """The registry of one app. Counts are of requests, choices and tokens; times are in seconds."""

    def __init__(self, engine_stats: Callable[[], EngineStats]) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(_EngineCollector(engine_stats))
        self.http_in_flight = Gauge(
            PREFIX + "http_requests_in_flight", "HTTP requests now open.", registry=self.registry
        )
        self.http_requests = self._counter("http_requests", "Answered HTTP requests.", "method", "route", "status")
        self.rejections = self._counter(
            "request_rejections", "Refused HTTP requests, by the code of the error.", "reason"
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of ended requests.")
        self.generation_tokens = self._counter("generation_tokens", "Generated tokens of ended requests.")
        self.outcomes = self._counter("request_success", "Choices by how they ended.", "finished_reason")
        self.batch_rows = self._counter("batch_rows", "Rows of batches, with and without an answer.", "outcome")
        self.batches_in_progress = Gauge(
            PREFIX + "batches_in_progress", "Batches whose rows are computed now.", registry=self.registry
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From the request to its first token.", REQUEST_BUCKETS_S
        )
        self.inter_token_latency = _TokenTimes(
            PREFIX + "inter_token_latency_seconds", "Between two outputs of one request.", TOKEN_BUCKETS_S
        )
        self.registry.register(self.inter_token_latency)
        self.queue_time = self._histogram("request_queue_time_seconds", "Waiting to be admitted.", REQUEST_BUCKETS_S)
        self.request_latency = self._histogram(
            "e2e_request_latency_seconds", "From the request to its last token.", REQUEST_BUCKETS_S
        )
        self.inference_time = self._histogram(
            "request_inference_time_seconds", "From the admission to the last token.", REQUEST_BUCKETS_S
        )
        self.prefill_time = self._histogram(
            "request_prefill_time_seconds", "From the admission to the first token.", REQUEST_BUCKETS_S
        )
        self.decode_time = self._histogram(
            "request_decode_time_seconds", "From the first token to the last.", REQUEST_BUCKETS_S
        )
        self.params_n = self._histogram("request_params_n", "The request's n.", N_BUCKETS)
        self.params_max_tokens = self._histogram(
            "request_params_max_tokens", "The request's limit of tokens, or the room for them.", LENGTH_BUCKETS
        )
        self.prompt_length = self._histogram("request_prompt_tokens", "Prompt tokens per request.", LENGTH_BUCKETS)
        self.generation_length = self._histogram(
            "request_generation_tokens", "Generated tokens per request.", LENGTH_BUCKETS
        )

    def refused(self, code: str | None) -> None:
        """Count a request that was refused; ``None``: it was not."""
        if code is not None:
            self.rejections.labels(code).inc()

    def show_cache_config(self, config: Mapping[str, str]) -> None:
        """vLLM's form for what does not change: 1, and all of it as labels. An engine that is loaded
        anew has the same.
        """
        if not config:
            return
        info = Gauge(PREFIX + "cache_config_info", "The KV cache.", tuple(config), registry=self.registry)
        info.labels(**config).set(1)

    def render(self) -> bytes:
        """All metrics in Prometheus' text form, as UTF-8 bytes."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, text, buckets=buckets, registry=self.registry)


class _EngineCollector(Collector):
    def __init__(self, engine_stats: Callable[[], EngineStats]) -> None:
        self.engine_stats = engine_stats

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask an engine that is still loading."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The engine's own figures, asked for at each scrape: counts of requests and tokens."""
        stats = self.engine_stats()
        yield GaugeMetricFamily(PREFIX + "num_requests_running", "Requests in the batch.", stats.num_running)
        yield GaugeMetricFamily(PREFIX + "num_requests_waiting", "Requests in the queue.", stats.num_waiting)
        yield GaugeMetricFamily(PREFIX + "kv_cache_usage_perc", "KV cache in use, 0 to 1.", stats.kv_cache_usage)
        yield CounterMetricFamily(PREFIX + "num_preemptions", "Sequences put back in the queue.", stats.num_preemptions)
        yield CounterMetricFamily(
            PREFIX + "prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", stats.prefix_cache_queries
        )
        yield CounterMetricFamily(
            PREFIX + "prefix_cache_hits", "Prompt tokens found in the prefix cache.", stats.prefix_cache_hits
        )
        yield CounterMetricFamily(PREFIX + "spec_decode_num_drafts", "Guesses at the next tokens.", stats.num_drafts)
        yield CounterMetricFamily(
            PREFIX + "spec_decode_num_draft_tokens", "Tokens of these guesses.", stats.num_draft_tokens
        )
        yield CounterMetricFamily(
            PREFIX + "spec_decode_num_accepted_tokens",
            "Tokens of these guesses that came true.",
            stats.num_accepted_draft_tokens,
        )
        yield HistogramMetricFamily(
            PREFIX + "iteration_tokens_total",
            "Tokens computed in one step, guesses included.",
            buckets=[(_as_label(bound), num_steps) for bound, num_steps in stats.step_sizes.up_to],
            sum_value=stats.step_sizes.num_tokens,
        )


class _TokenTimes(Collector):
    """A histogram of seconds that every token passes: for one thread, so without the locks of
    prometheus_client's, in a fifth of its time. Mutable.
    """

    def __init__(self, name: str, text: str, bounds_s: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._bounds_s = (*bounds_s, math.inf)
        self._counts = [0] * len(self._bounds_s)
        self._sum_s = 0.0
        self._created_s = time.time()

    def observe(self, seconds: float, *, times: int = 1) -> None:
        """Count it under the first bound that is no smaller."""
        self._counts[bisect_left(self._bounds_s, seconds)] += times
        self._sum_s += seconds * times

    def collect(self) -> Iterator[Metric]:
        """All so far."""
        buckets = list(zip(map(_as_label, self._bounds_s), accumulate(self._counts), strict=True))
        family = HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum_s)
        family.add_sample(self._name + "_created", {}, self._created_s)
        yield family


def _as_label(bound: float) -> str:
    """As Prometheus' own histograms write it."""
    return "+Inf" if math.isinf(bound) else str(float(bound))


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of one request, in tokens; ``reasons`` says how each choice ended."""

    prompt_tokens: int
    completion_tokens: int
    n: int
    max_tokens: int
    reasons: Sequence[str]


class RequestTimer:
    """The clock of one generation, in seconds of ``time.perf_counter``; 0 is not yet. Mutable;
    ``finish`` is called once, whatever happened, unless the engine refuses the request.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.started_s = time.perf_counter()
        self.admitted_s = 0.0
        self.first_output_s = 0.0
        self.last_output_s = 0.0
        self.finished_s = 0.0
        self.totals: Totals | None = None

    def output(self, output: RequestOutput) -> None:
        """An output of the engine has come; the first may be a step late and tell of tokens already. Of
        outputs that come joined only the mean time between them is known.
        """
        now_s = time.perf_counter()
        if self.admitted_s == 0.0:
            self.admitted_s = output.admitted_s or now_s
            self.metrics.queue_time.observe(self.admitted_s - self.started_s)
        if not any(delta.token_ids for delta in output.deltas):
            return
        if self.last_output_s == 0.0:
            self.first_output_s = now_s
            self.metrics.time_to_first_token.observe(now_s - self.started_s)
        else:
            between_s = (now_s - self.last_output_s) / output.num_joined
            self.metrics.inter_token_latency.observe(between_s, times=output.num_joined)
        self.last_output_s = now_s

    def finish(self, totals: Totals) -> None:
        """The request has ended, however it did."""
        metrics, self.totals, self.finished_s = self.metrics, totals, time.perf_counter()
        metrics.request_latency.observe(self.finished_s - self.started_s)
        if self.first_output_s:
            metrics.inference_time.observe(self.last_output_s - self.admitted_s)
            metrics.prefill_time.observe(self.first_output_s - self.admitted_s)
            metrics.decode_time.observe(self.last_output_s - self.first_output_s)
        metrics.params_n.observe(totals.n)
        metrics.params_max_tokens.observe(totals.max_tokens)
        metrics.prompt_tokens.inc(totals.prompt_tokens)
        metrics.prompt_length.observe(totals.prompt_tokens)
        metrics.generation_tokens.inc(totals.completion_tokens)
        metrics.generation_length.observe(totals.completion_tokens)
        for reason in totals.reasons:
            metrics.outcomes.labels(reason).inc()
