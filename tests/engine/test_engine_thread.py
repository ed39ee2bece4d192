"""When the news of a step are told: while the next one computes, and never too late."""

import asyncio
from pathlib import Path

import pytest

from engine import engine_thread
from engine.async_engine import AsyncLLMEngine
from engine.errors import StepError
from engine.loading import LoadedEngine
from engine.sampling_params import SamplingParams
from tests.engine.engines import load, tiny_checkpoint
from tests.engine.test_async_engine import collect

PROMPT = [2, 150, 151, 152]


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedEngine:
    return load(tiny_checkpoint(tmp_path / "model"))


def greedy(num_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)


def test_news_are_told_between_schedule_and_computing(loaded: LoadedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the GIL is about to be free; the last news have no step behind them."""
    done: list[str] = []
    core, on_loop = loaded.core, engine_thread._on_loop
    schedule, compute = core.scheduler.schedule, core._runner.run

    def noted(name: str) -> None:
        done.append(name)

    monkeypatch.setattr(core.scheduler, "schedule", lambda failures: [noted("schedule"), schedule(failures)][1])
    monkeypatch.setattr(core._runner, "run", lambda batch: [noted("compute"), compute(batch)][1])

    def on_loop_noted(loop: asyncio.AbstractEventLoop, call: object, *args: object) -> None:
        if args and isinstance(args[0], list):
            noted("tell")
        on_loop(loop, call, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_thread, "_on_loop", on_loop_noted)

    async def main() -> None:
        engine = AsyncLLMEngine(lambda: loaded)
        await engine.start()
        assert len(await collect(engine, "a", PROMPT, greedy(3))) == 3
        await engine.shutdown()

    asyncio.run(main())
    assert done == [*["schedule", "compute", "schedule", "tell", "compute", "schedule", "tell", "compute"], "tell"]


def test_who_has_finished_is_told_so_though_the_next_step_dies(loaded: LoadedEngine) -> None:
    schedule, num_steps = loaded.core.scheduler.schedule, 0

    def schedule_once(failures: object) -> object:
        nonlocal num_steps
        num_steps += 1
        if num_steps == 2:
            raise RuntimeError("broken on purpose")
        return schedule(failures)  # type: ignore[arg-type]

    loaded.core.scheduler.schedule = schedule_once  # type: ignore[assignment, method-assign]

    async def main() -> None:
        engine = AsyncLLMEngine(lambda: loaded)
        await engine.start()
        short = asyncio.ensure_future(collect(engine, "short", PROMPT, greedy(1)))
        long = asyncio.ensure_future(collect(engine, "long", PROMPT, greedy(9)))
        assert len(await short) == 1
        with pytest.raises(StepError):
            await long
        await engine.shutdown()

    asyncio.run(main())
