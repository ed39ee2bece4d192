"""``/v1/server``: figures that agree with ``/metrics``, and of requests what everybody may know of his own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.engine_info import EngineStatus
from engine.kv_cache_sizes import BlockCounts, KVCacheLayout
from engine.request_status import RequestPhase, RequestStatus
from openai_api.endpoints.server_status import MAX_ROWS
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import Asgi, chat_body
from tests.openai_api.test_monitoring import scrape

CHAT = "/v1/chat/completions"
SERVER = "/v1/server"
HEX = "0123456789abcdef" * 2


def status_of(request_id: str, caller_name: str, **fields: Any) -> RequestStatus:
    return RequestStatus(
        **{
            "request_id": request_id,
            "caller_name": caller_name,
            "phase": RequestPhase.DECODE,
            "num_sequences": 1,
            "num_prompt_tokens": 10,
            "max_output_tokens": 64,
            "is_constrained": False,
            "is_scoring": False,
            **fields,
        }
    )


def look(asgi: Asgi, key: str = "") -> dict[str, Any]:
    answer = asgi.request("GET", SERVER, headers={"authorization": f"Bearer {key}"} if key else {})
    assert answer.status == 200, answer.body
    return dict(answer.json)


def test_the_figures_are_those_of_the_metrics(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text="abc", token_s=0.002)
    asgi.post(CHAT, chat_body(stream=True))
    engine.waiting.add("x")
    told, values = look(asgi), scrape(asgi)
    totals = told["totals"]
    assert (told["running"], told["waiting"]) == (
        values["num_requests_running"],
        values["num_requests_waiting"],
    )
    assert told["kv_cache"] is None, "this engine has no layout"
    for mine, theirs in {
        "prefix_cache_queries": "prefix_cache_queries_total",
        "prefix_cache_hits": "prefix_cache_hits_total",
        "draft_tokens": "spec_decode_num_draft_tokens_total",
        "accepted_draft_tokens": "spec_decode_num_accepted_tokens_total",
        "preemptions": "num_preemptions_total",
        "steps": "iteration_tokens_total_count",
        "computed_tokens": "iteration_tokens_total_sum",
    }.items():
        assert totals[mine] == values[theirs], mine
    for name in ("time_to_first_token", "inter_token_latency"):
        assert told[name]["count"] == values[f"{name}_seconds_count"] > 0
        assert told[name]["sum_s"] == pytest.approx(values[f"{name}_seconds_sum"])
    assert told["uptime_s"] > 0
    assert told["machine"]["processors"] >= 1


def test_the_model_and_its_cache(asgi: Asgi, engine: FakeEngine) -> None:
    layout = KVCacheLayout(
        block_size=16, window=512, num_global_layers=3, num_sliding_layers=15, num_bytes_per_token=1024
    )
    engine.info = replace(
        engine.info, isa="avx2", num_threads=2, step_bytes=7, kv_layout=layout, kv_blocks=BlockCounts(9, 4)
    )
    told = look(asgi)
    model, cache = told["model"], told["kv_cache"]
    assert (model["names"], model["instruction_set"], model["threads"]) == (["gemma-3-270m-it"], "avx2", 2)
    assert (cache["block_tokens"], cache["usage"]) == (16, 0.25)
    assert cache["global_layers"] == {"used_blocks": 0, "blocks": 9, "block_bytes": 16 * 3 * 1024}
    assert cache["sliding_layers"]["blocks"] == 4


def test_batches_are_counted_where_files_are_kept(asgi: Asgi, engine: FakeEngine, tmp_path: Path) -> None:
    assert look(asgi)["batches"] is None
    keeping = Asgi(engine, ServerSettings(data_dir=str(tmp_path / "data")))
    metrics = keeping.app.state.app_state.metrics
    for outcome, num_rows in (("completed", 5), ("failed", 2)):
        metrics.batch_rows.labels(outcome).inc(num_rows)
    metrics.batches_in_progress.inc()
    assert look(keeping)["batches"] == {"in_progress": 1, "rows": 7}


def test_it_answers_while_the_model_loads(engine: FakeEngine) -> None:
    class Loading(FakeEngine):
        @property
        def info(self) -> Any:
            EngineStatus.LOADING.check_ready()

        @info.setter
        def info(self, value: object) -> None:
            """Nothing is known yet."""

    told = look(Asgi(Loading(status=EngineStatus.LOADING), ServerSettings()))
    assert (told["status"], told["model"], told["kv_cache"]) == ("loading", None, None)


def test_a_row_says_how_far_a_request_is(asgi: Asgi, engine: FakeEngine) -> None:
    """And of its id no more than tells it from others."""
    engine.statuses = [
        status_of(f"chatcmpl-{HEX}-1", "", num_sequences=2, num_output_tokens=7, max_output_tokens=None, age_s=1.5),
        status_of(f"resp_{HEX}", "", phase=RequestPhase.WAITING, max_output_tokens=10**9, is_constrained=True),
    ]
    first, second = look(asgi)["requests"]
    assert (first["id"], second["id"]) == ("chatcmpl-01234567-1", "resp_01234567")
    assert (first["choices"], first["output_tokens"], first["age_s"]) == (2, 7, 1.5)
    assert first["max_output_tokens"] == 2 * (4096 - 10), "the context bounds what has no limit"
    assert second["max_output_tokens"] == 4096 - 10
    assert (second["phase"], second["is_constrained"]) == ("waiting", True)


def test_of_several_callers_each_sees_his_own(engine: FakeEngine) -> None:
    """With one key or none there is one person, whichever addresses he calls from."""
    engine.statuses = [status_of("a", "key 0"), status_of("b", "key 1"), status_of("c", "key 1"), status_of("d", "x")]
    several = Asgi(engine, ServerSettings(api_keys=("k", "l")))
    for key, ids in (("k", ["a"]), ("l", ["b", "c"])):
        told = look(several, key)
        assert [row["id"] for row in told["requests"]] == ids
        assert told["other_requests"] == 4 - len(ids)
    for settings, key in ((ServerSettings(api_keys=("k",)), "k"), (ServerSettings(), "")):
        told = look(Asgi(engine, settings), key)
        assert ([row["id"] for row in told["requests"]], told["other_requests"]) == (list("abcd"), 0)
    assert several.get(SERVER).status == 401


def test_many_requests_are_counted(asgi: Asgi, engine: FakeEngine) -> None:
    engine.statuses = [status_of(f"{number}", "") for number in range(MAX_ROWS + 5)]
    told = look(asgi)
    assert [row["id"] for row in told["requests"]] == [f"{number}" for number in range(MAX_ROWS)]
    assert told["other_requests"] == 5


def test_a_hostile_name_is_a_string(engine: FakeEngine) -> None:
    name = "</script><img src=x onerror=alert(1)>\u2028\"'"
    answer = Asgi(engine, ServerSettings(served_model_names=(name,))).get(SERVER)
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["model"]["names"] == [name]
