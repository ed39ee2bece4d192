"""When the news of a step are told: while the next one computes, and never too late."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from engine import engine_thread, untold_news
from engine.async_engine import AsyncLLMEngine
from engine.batch import Batch
from engine.errors import StepError
from engine.loading import LoadedEngine
from engine.outputs import joined
from engine.runners.model_runner import SequenceResult
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


def test_a_whole_answer_is_told_in_few_pieces(loaded: LoadedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first tokens at once, then as many steps together as are kept, then the rest; the text is that of a stream."""
    monkeypatch.setattr(untold_news, "MAX_UNREAD", 4)
    scheduler = loaded.core.scheduler
    scheduler.config = replace(scheduler.config, max_draft_rows=0)  # a token a step

    async def main() -> None:
        engine = AsyncLLMEngine(lambda: loaded)
        await engine.start()
        streamed = [output async for output in engine.generate("a", PROMPT, greedy(10))]
        whole = [output async for output in engine.generate("b", PROMPT, greedy(10), is_streamed=False)]
        assert [output.num_joined for output in streamed] == [1] * 10
        assert [output.num_joined for output in whole] == [1, 4, 4, 1]
        assert joined(whole).deltas == joined(streamed).deltas
        assert [output.finished for output in whole] == [False, False, False, True]
        await engine.shutdown()

    asyncio.run(main())


def test_a_whole_answer_that_fails_or_is_left_is_forgotten(loaded: LoadedEngine) -> None:
    compute, num_steps = loaded.core._runner.run, 0

    def compute_three_times(batch: Batch) -> list[SequenceResult]:
        nonlocal num_steps
        num_steps += 1
        if num_steps > 3:
            raise RuntimeError("broken on purpose")
        return compute(batch)

    loaded.core._runner.run = compute_three_times  # type: ignore[method-assign]

    async def main() -> None:
        engine = AsyncLLMEngine(lambda: loaded)
        await engine.start()
        with pytest.raises(StepError):
            async for _ in engine.generate("fails", PROMPT, greedy(9), is_streamed=False):
                pass
        loaded.core._runner.run = compute  # type: ignore[method-assign]
        left = engine.generate("left", PROMPT, greedy(9), is_streamed=False)
        await anext(left)
        await left.aclose()
        assert len(await collect(engine, "next", PROMPT, greedy(2))) == 2
        assert not engine._life._thread._untold._held
        await engine.shutdown()

    asyncio.run(main())
