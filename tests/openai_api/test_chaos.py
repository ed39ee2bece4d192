"""Nobody is hurt under chaos, and the chaos run would notice.

By hand: ``python -m tests.openai_api.chaos``.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.openai_api.chaos.observer import CANARIES, Figures, Verdict, log_complaints, reply_of
from tests.openai_api.chaos.run import SHORT, Plan, chaos, long_plan
from tests.openai_api.chaos.servers import Model, padded_model, real_model, serving
from tests.openai_api.chaos.tally import Tally
from tests.openai_api.chaos.wire import Answer

FAULTY = ("-m", "tests.openai_api.chaos.faulty")
CONTROL = replace(SHORT, num_rounds=1, quiet_within_s=8)
TYPE = {"content-type": "application/json"}
QUIET = {
    "num_requests_running": 0.0,
    "num_requests_waiting": 0.0,
    "http_requests_in_flight": 1.0,
    "kv_cache_usage_perc": 0.0,
}
LOOK = Figures(num_files=8, num_threads=6, anonymous_mib=100.0, peak_mib=300.0, is_healthy=True, gauges=QUIET)


def error(status: int, code: str, **more: object) -> Answer:
    members = {"message": "m", "type": "server_error", "param": None, "code": code, **more}
    return Answer(status, TYPE, json.dumps({"error": members}).encode())


@pytest.fixture(scope="module")
def can_attack() -> None:
    pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
    if not Path("/proc/self/status").is_file():
        pytest.skip("what a process uses is read from /proc, which this system does not have")


@pytest.fixture(scope="module")
def padded(can_attack: None, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return padded_model(tmp_path_factory.mktemp("chaos"))


@pytest.fixture
def real(can_attack: None, embedded_gguf: Path) -> Model:
    assert embedded_gguf.is_file()
    return real_model()


def verdict_of(model: Model, plan: Plan, log: Path, *fault: str) -> Verdict:
    """Over a server of ``model``, with the fault of that name put in."""
    program = (*FAULTY, *fault) if fault else ("main.py", "serve")
    with serving(model, log, program=program) as target:
        verdict = asyncio.run(chaos(target, plan))
    print(verdict)
    return verdict


@pytest.mark.parametrize(
    ("attack", "answer", "problem"),
    [
        ("whole", Answer(200, {}), None),
        ("whole", error(429, "queue_full"), None),
        ("whole", error(503, "queue_timeout"), None),
        ("huge", error(503, "busy"), None),
        ("whole", error(503, "busy"), "a 5xx: 503 busy"),
        ("whole", error(503, "too_many_connections"), "a 5xx: 503 too_many_connections"),
        ("whole", error(500, "internal_error"), "a 5xx: 500 internal_error"),
        ("whole", error(400, "invalid_value"), "400 invalid_value"),
        ("whole", Answer(0, {}), "no answer"),
        ("whole", error(429, "queue_full", detail="x"), "an error with the members"),
        ("whole", error(429, "queue_full", message="x" * 4096), "an error body of 4"),
        ("whole", replace(error(429, "queue_full"), headers={"content-type": "text/html"}), "an error of type text"),
    ],
)
def test_what_an_attacker_may_be_answered(attack: str, answer: Answer, problem: str | None) -> None:
    tally = Tally()
    tally.judge(attack, answer, 200)
    assert tally.answers.total() == 1
    assert len(tally.problems) == (problem is not None)
    assert all(complaint.startswith(f"{attack}: {problem}") for complaint in tally.problems)


@pytest.mark.parametrize(
    ("end", "is_fine"),
    [
        (b"[DONE]", True),
        (error(503, "queue_timeout").body, True),
        (error(500, "step_failed").body, False),
        (b"", False),
    ],
)
def test_how_a_stream_may_end(end: bytes, is_fine: bool) -> None:
    tally = Tally()
    tally.judge_stream("streamed", Answer(200, {}, b'data: {"choices": []}\n\n' + b"data: " + end + b"\n\n"), 200)
    assert (not tally.problems) == is_fine


def test_a_stream_and_a_whole_answer_are_the_same_reply() -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "ab"}, "token_ids": [1, 2], "finish_reason": "stop"}]}
    usage = {"usage": {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}}
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": text}, "token_ids": ids, "finish_reason": reason}]}
        for text, ids, reason in (("a", [1], None), ("b", [2], None), (None, [], "stop"))
    ]
    events = [*(json.dumps(chunk) for chunk in (*chunks, {"choices": [], **usage})), "[DONE]"]
    stream = ": waiting\n" + ": waiting\n\n".join(f"data: {event}\n\n" for event in events)
    reply = reply_of(Answer(200, {}, json.dumps(whole | usage).encode()), streams=False)
    assert reply == reply_of(Answer(200, {}, stream.encode()), streams=True)
    assert reply.choices == {0: ("ab", (1, 2), "stop")}
    assert reply.usage == {"prompt_tokens": 3}
    assert reply != reply_of(Answer(200, {}, stream.replace("[2]", "[3]").encode()), streams=True)
    assert len({canary.request(streams=False) for canary in CANARIES}) == len(CANARIES)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"anonymous_mib": 190.0}, "memory grows by 30 MiB a round"),
        ({"num_files": 9}, "8 files were open, now 9"),
        ({"num_threads": 40}, "6 threads ran, now 40"),
        ({"is_healthy": False}, "/health is not 200"),
        ({"gauges": QUIET | {"num_requests_running": 1.0}}, "something is left"),
        ({"gauges": {}}, "something is left"),
    ],
)
def test_what_the_process_must_come_back_to(change: dict[str, object], problem: str | None) -> None:
    last = replace(LOOK, **change)  # type: ignore[arg-type]
    between = [replace(LOOK, anonymous_mib=100 + (last.anonymous_mib - 100) * part / 3) for part in (1, 2)]
    verdict = Verdict([], looks=[LOOK, *between, last])
    verdict.judge_process(allowed_growth_mib=24)
    assert [text for text in verdict.problems if not text.startswith(str(problem))] == []
    assert len(verdict.problems) == (problem is not None)


def test_a_heap_that_jumps_once_is_no_leak() -> None:
    looks = [replace(LOOK, anonymous_mib=mib) for mib in (100.0, 104.0, 190.0, 191.0)]
    assert Verdict([], looks=looks).growth_mib == 4


def test_the_log_holds_no_error_and_no_traceback() -> None:
    fine = '{"level": "info", "event": "request"}\n{"level": "warning", "event": "x"}\n'
    assert log_complaints(fine) == []
    assert len(log_complaints(fine + '{"level": "error", "event": "unexpected_error"}\nTraceback (most recent')) == 2


@pytest.mark.slow
def test_a_padded_vocabulary_under_chaos(padded: Model, tmp_path: Path) -> None:
    assert verdict_of(padded, SHORT, tmp_path / "log").problems == []


@pytest.mark.slow
def test_the_real_model_under_chaos(real: Model, tmp_path: Path) -> None:
    plan = replace(SHORT, num_workers=6, fill_tokens=1_500, warm_up_s=3, num_rounds=2, round_s=3)
    assert verdict_of(real, plan, tmp_path / "log").problems == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [("leak", "memory grows by"), ("wrong token", "a wrong answer: canary"), ("death", "a 5xx: 5")],
)
def test_a_fault_put_in_on_purpose_is_found(padded: Model, tmp_path: Path, fault: str, reason: str) -> None:
    problems = verdict_of(padded, CONTROL, tmp_path / "log", fault).problems
    assert any(reason in problem for problem in problems), problems


@pytest.mark.soak
@pytest.mark.usefixtures("real")
def test_ten_minutes_with_sixty_workers(tmp_path: Path) -> None:
    model = real_model(kv_cache_mib=128, max_model_len=8_192)
    assert verdict_of(model, long_plan(minutes=10, num_workers=60), tmp_path / "log").problems == []


@pytest.mark.soak
def test_ten_minutes_of_a_padded_vocabulary(padded: Model, tmp_path: Path) -> None:
    assert verdict_of(padded, long_plan(minutes=10, num_workers=60), tmp_path / "log").problems == []
