"""Metrics, as Prometheus reads them, and log records, as a log collector reads them."""

import io
import json
import logging
import sys

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.engine_info import EngineStats, EngineStatus
from engine.errors import StepError
from engine.outputs import RequestOutput, SequenceDelta
from openai_api.logs import EventFormatter, log_event
from openai_api.metrics import Metrics, RequestTimer
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import Asgi, LiveServer, chat_body, completion_body, wait_until

CHAT = "/v1/chat/completions"


def samples(text: str) -> dict[str, float]:
    """``name{label,...}`` -> value, without the prefix."""
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            values[sample.name.removeprefix("gemma3:") + (f"{{{labels}}}" if labels else "")] = sample.value
    return values


def scrape(asgi: Asgi) -> dict[str, float]:
    answer = asgi.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples(answer.body.decode())


def test_what_a_request_leaves_behind(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="abc", queue_s=0.03, prefill_s=0.06, token_s=0.011)
    asgi.post(CHAT, chat_body(stream=True))
    asgi.post(CHAT, chat_body(max_tokens=2, n=2))
    asgi.post("/v1/completions", completion_body(prompt=["a", "b"], max_tokens=1))
    values = scrape(asgi)
    assert values["prompt_tokens_total"] == 17 + 17 + 4
    assert values["generation_tokens_total"] == 4 + 4 + 2
    assert values["request_success_total{stop}"] == 1
    assert values["request_success_total{length}"] == 4
    assert values["time_to_first_token_seconds_count"] == 3
    assert values["e2e_request_latency_seconds_count"] == 3
    assert values["request_queue_time_seconds_count"] == 3
    assert values["inter_token_latency_seconds_count"] == 3 + 1 + 1
    assert 0.09 < values["request_queue_time_seconds_sum"] < 1
    assert values["time_to_first_token_seconds_sum"] > values["request_queue_time_seconds_sum"] + 3 * 0.06
    assert values["inter_token_latency_seconds_sum"] > 3 * 0.01
    assert values["request_prompt_tokens_sum"] == values["prompt_tokens_total"]
    assert values["request_generation_tokens_sum"] == values["generation_tokens_total"]
    assert values["http_requests_total{POST,/v1/chat/completions,200}"] == 2


def test_what_a_request_asked_for_and_how_long_its_parts_took(asgi: Asgi, engine: FakeEngine) -> None:
    """One observation a request, the room of the context where it has no limit; of one without a token only its wishes."""
    engine.script = Script(text="abc", queue_s=0.03, prefill_s=0.06, token_s=0.02)
    asgi.post(CHAT, chat_body(stream=True, max_tokens=3))
    asgi.post(CHAT, chat_body(n=2))
    asgi.post("/v1/completions", completion_body(prompt=["a", "b"], max_tokens=0))
    values = scrape(asgi)
    assert values["request_params_n_count"] == 3
    assert (values["request_params_n_sum"], values["request_params_n_bucket{1.0}"]) == (1 + 2 + 1, 2)
    assert values["request_params_max_tokens_sum"] == 3 + (4096 - 17) + 0
    for part in ("inference", "prefill", "decode"):
        assert values[f"request_{part}_time_seconds_count"] == 2, part
    prefill, decode = values["request_prefill_time_seconds_sum"], values["request_decode_time_seconds_sum"]
    assert prefill > 2 * 0.06
    assert decode > 2 * 2 * 0.02
    assert values["request_inference_time_seconds_sum"] == pytest.approx(prefill + decode)
    parts = values["request_queue_time_seconds_sum"] + values["request_inference_time_seconds_sum"]
    assert parts < values["e2e_request_latency_seconds_sum"]


def test_refused_requests_are_counted_by_their_reason(asgi: Asgi, engine: FakeEngine) -> None:
    """What the client or the load is the reason of; a failure of ours is no refusal."""
    asgi.post(CHAT, b"{")
    asgi.post(CHAT, chat_body(temperature=9))
    asgi.post(CHAT, chat_body(max_tokens=-5))
    asgi.post(CHAT, chat_body(model="another"))
    asgi.get("/nowhere")
    asgi.request("GET", "/v1/models", headers={"host": "evil.example"})
    asgi.request("DELETE", "/v1/models")
    engine.script = Script(fail=StepError("x"))
    asgi.post(CHAT, chat_body())
    engine.max_waiting = 0
    asgi.post(CHAT, chat_body())
    engine.status = EngineStatus.DRAINING
    asgi.post(CHAT, chat_body())
    values = scrape(asgi)
    counted = {name: value for name, value in values.items() if name.startswith("request_rejections_total")}
    assert counted == {
        f"request_rejections_total{{{reason}}}": count
        for reason, count in {
            "invalid_json": 1,
            "invalid_value": 2,
            "model_not_found": 1,
            "unknown_url": 1,
            "host_not_allowed": 1,
            "method_not_allowed": 1,
            "queue_full": 1,
            "not_ready": 1,
        }.items()
    }


def test_the_cache_s_configuration_is_shown_when_it_is_known(live: LiveServer) -> None:
    text = httpx.get(f"{live.url}/metrics").text
    assert 'gemma3:cache_config_info{block_size="16",num_gpu_blocks="7"} 1.0' in text


def test_the_engines_own_figures(asgi: Asgi, engine: FakeEngine) -> None:
    engine.waiting.add("x")
    values = scrape(asgi)
    assert values["num_requests_running"] == 0
    assert values["num_requests_waiting"] == 1
    assert values["kv_cache_usage_perc"] == 0.25
    for name, count in {"num_preemptions": 3, "prefix_cache_queries": 20, "prefix_cache_hits": 11}.items():
        assert values[f"{name}_total"] == count
    assert values["spec_decode_num_drafts_total"] == 2
    assert values["spec_decode_num_draft_tokens_total"] == 9
    assert values["spec_decode_num_accepted_tokens_total"] == 7
    steps = [values[f"iteration_tokens_total_bucket{{{bound}}}"] for bound in ("1.0", "8.0", "16.0", "8192.0", "+Inf")]
    assert steps == [1, 1, 3, 3, 3]
    assert (values["iteration_tokens_total_count"], values["iteration_tokens_total_sum"]) == (3, 33)


def test_outcomes_that_are_no_answer(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(fail=StepError("x"), fail_at=1)
    asgi.post(CHAT, chat_body(n=3))
    asgi.post(CHAT, b"{")
    asgi.get("/my-secret-path")
    values = scrape(asgi)
    assert values["request_success_total{error}"] == 3
    assert values["http_requests_total{POST,/v1/chat/completions,500}"] == 1
    assert values["http_requests_total{POST,/v1/chat/completions,400}"] == 1
    assert values["http_requests_total{GET,unmatched,404}"] == 1
    assert not any("secret" in name for name in values)


def test_a_client_that_leaves_counts_as_an_abort(live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(token_s=0.05)
    before = samples(httpx.get(f"{live.url}/metrics").text)
    with httpx.stream("POST", live.url + CHAT, json=chat_body(stream=True)) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert "num_requests_running 1.0" in httpx.get(f"{live.url}/metrics").text
    wait_until(lambda: engine.aborted)
    after = samples(httpx.get(f"{live.url}/metrics").text)
    for name in ("request_success_total{abort}", "http_requests_total{POST,/v1/chat/completions,499}"):
        assert after[name] == before.get(name, 0) + 1


def test_a_request_that_the_engine_refuses_is_counted_as_that_alone(asgi: Asgi) -> None:
    before = scrape(asgi)
    for prompt in ("x" * 5000, ["a", [5] * 5000]):
        answer = asgi.post("/v1/completions", completion_body(prompt=prompt))
        assert answer.error["code"] == "context_length_exceeded"
    after = scrape(asgi)
    assert after["request_rejections_total{context_length_exceeded}"] == 2
    for name in ("prompt_tokens_total", "e2e_request_latency_seconds_count", "request_params_n_count"):
        assert after[name] == before[name] == 0
    assert not any(name.startswith("request_success_total") for name in after)


def test_apps_do_not_share_their_metrics(asgi: Asgi) -> None:
    asgi.post(CHAT, chat_body())
    other = Asgi(FakeEngine(), ServerSettings())
    assert scrape(other)["generation_tokens_total"] == 0
    assert scrape(asgi)["generation_tokens_total"] == 29


@pytest.mark.parametrize("as_json", [True, False])
def test_log_records(as_json: bool) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EventFormatter(as_json=as_json))
    logger = logging.getLogger("openai_api")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        log_event(logging.INFO, "request", {"status": 200, "route": "/x"})
        try:
            raise ValueError("a secret\nin two lines")
        except ValueError:
            logger.error("failed", exc_info=sys.exc_info())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    first, second = stream.getvalue().splitlines()
    assert "secret" not in second
    if as_json:
        record = json.loads(first)
        assert (record["event"], record["level"], record["status"], record["route"]) == ("request", "info", 200, "/x")
        assert json.loads(second)["error"] == "ValueError"
    else:
        assert first.endswith("info    request status=200 route=/x")
        assert "error=ValueError" in second


def test_outputs_that_come_joined_count_each() -> None:
    """Those of a whole answer: as many gaps as a stream would have had."""
    metrics = Metrics(EngineStats)
    timer = RequestTimer(metrics)
    for num_joined in (1, 5):
        delta = SequenceDelta(0, "a", (5,) * num_joined)
        timer.output(RequestOutput("r", (delta,), finished=False, num_prompt_tokens=1, num_joined=num_joined))
    assert b"gemma3:inter_token_latency_seconds_count 5.0" in metrics.render()
