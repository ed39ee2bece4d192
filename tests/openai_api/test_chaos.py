"""Nobody is hurt under chaos, and the chaos run would notice. The long run is ``python -m tests.openai_api.chaos``."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.openai_api.chaos.observer import Verdict
from tests.openai_api.chaos.run import SHORT, Plan, chaos, long_plan
from tests.openai_api.chaos.servers import Model, padded_model, real_model, serving

FAULTY = ("-m", "tests.openai_api.chaos.faulty")
CONTROL = replace(SHORT, num_rounds=1, quiet_within_s=8)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Model:
    pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
    return padded_model(tmp_path_factory.mktemp("chaos"))


@pytest.fixture
def real(embedded_gguf: Path) -> Model:
    pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
    assert embedded_gguf.is_file()
    return real_model()


def verdict_of(model: Model, plan: Plan, log: Path, *fault: str) -> Verdict:
    """Over a server of ``model``, with the fault of that name put in."""
    program = (*FAULTY, *fault) if fault else ("main.py", "serve")
    with serving(model, log, program=program) as target:
        verdict = asyncio.run(chaos(target, plan))
    print(verdict)
    return verdict


@pytest.mark.slow
def test_a_padded_vocabulary_under_chaos(padded: Model, tmp_path: Path) -> None:
    assert verdict_of(padded, SHORT, tmp_path / "log").problems == []


@pytest.mark.slow
def test_the_real_model_under_chaos(real: Model, tmp_path: Path) -> None:
    plan = replace(SHORT, num_workers=6, fill_tokens=2_000)
    assert verdict_of(real, plan, tmp_path / "log").problems == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [("leak", "memory grows by"), ("mix up", "a wrong answer: canary"), ("die", "a 5xx: 5")],
)
def test_a_fault_put_in_on_purpose_is_found(padded: Model, tmp_path: Path, fault: str, reason: str) -> None:
    problems = verdict_of(padded, CONTROL, tmp_path / "log", fault).problems
    assert any(reason in problem for problem in problems), problems


@pytest.mark.soak
def test_ten_minutes_with_sixty_workers(real: Model, tmp_path: Path) -> None:
    assert verdict_of(real, long_plan(minutes=10, num_workers=60), tmp_path / "log").problems == []


@pytest.mark.soak
def test_ten_minutes_of_a_padded_vocabulary(padded: Model, tmp_path: Path) -> None:
    assert verdict_of(padded, long_plan(minutes=10, num_workers=60), tmp_path / "log").problems == []
