"""The engine thread dies: its requests end with an error, and the next ones are answered as if
nothing had been.
"""

import asyncio
import gc
import threading
import weakref
from collections import abc
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.async_engine import AsyncLLMEngine
from engine.engine_core import EngineCore
from engine.engine_info import EngineStatus
from engine.errors import EngineNotReadyError, StepError
from engine.loading import LoadedEngine
from engine.sampling_params import SamplingParams
from tests.engine.engines import GREEDY, load, run, tiny_checkpoint
from tests.engine.test_async_engine import collect

PROMPTS = [[2, 150, 151, 152], [2, 160, 161], [2, 170]]
LONG = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("rebirth") / "model")


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> list[list[int]]:
    answers = run(load(checkpoint), {str(i): prompt for i, prompt in enumerate(PROMPTS)})
    return [answers[str(i)][0].token_ids for i in range(len(PROMPTS))]


Break = abc.Callable[[EngineCore, BaseException], None]


def raise_(error: BaseException) -> abc.Callable[..., None]:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise type(error)(*error.args)

    return broken


def scheduling(core: EngineCore, error: BaseException) -> None:
    core.scheduler.schedule = raise_(error)  # type: ignore[method-assign]


def reporting(core: EngineCore, error: BaseException) -> None:
    core._report_all = raise_(error)  # type: ignore[method-assign]


def pacing(core: EngineCore, error: BaseException) -> None:
    core.scheduler.pace.observe = raise_(error)  # type: ignore[method-assign]


def aborting(core: EngineCore, error: BaseException) -> None:
    core.abort_request = raise_(error)  # type: ignore[method-assign]
    core.scheduler.pace.observe = raise_(error)  # type: ignore[method-assign]


@dataclass
class Loader:
    """Loads a new engine each time; remembers the cores without keeping them."""

    checkpoint: Path
    cores: list[weakref.ref[EngineCore]] = field(default_factory=list)
    errors: list[Exception | None] = field(default_factory=list)  # to raise, at each load
    may_load: threading.Event = field(default_factory=threading.Event)
    num_alive_at_load: list[int] = field(default_factory=list)

    def __call__(self) -> LoadedEngine:
        self.num_alive_at_load.append(sum(core() is not None for core in self.cores))
        error = self.errors.pop(0) if self.errors else None
        if self.cores:
            assert self.may_load.wait(20)
        if error is not None:
            raise error
        loaded = load(self.checkpoint, max_num_seqs=2)
        self.cores.append(weakref.ref(loaded.core))
        return loaded

    def sabotage(self, part: Break, error: BaseException) -> None:
        core = self.cores[-1]()
        assert core is not None
        part(core, error)


async def until_ready(engine: AsyncLLMEngine) -> None:
    while engine.status is EngineStatus.LOADING:
        await asyncio.sleep(0.005)
    assert engine.status is EngineStatus.READY


async def break_it(
    engine: AsyncLLMEngine, loader: Loader, part: Break, error: BaseException | None = None
) -> list[object]:
    """With two requests that run and one that waits; what became of them."""
    tasks = [asyncio.create_task(collect(engine, f"doomed {i}", PROMPTS[i], LONG)) for i in range(3)]
    while engine.stats().num_running < 2:
        await asyncio.sleep(0.005)
    loader.sabotage(part, error or RuntimeError("broken on purpose"))
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)


DEATHS = [
    (scheduling, RuntimeError("broken")),
    (scheduling, SystemExit(3)),
    (scheduling, MemoryError()),
    (reporting, RuntimeError("broken")),
    (pacing, RuntimeError("broken")),
    (aborting, RuntimeError("broken")),
]


@pytest.mark.parametrize(("part", "error"), DEATHS)
def test_the_next_requests_are_answered_as_before(
    checkpoint: Path, expected: list[list[int]], part: Break, error: BaseException
) -> None:
    async def main() -> None:
        loader = Loader(checkpoint)
        loader.may_load.set()
        engine = AsyncLLMEngine(loader)
        await engine.start()
        answers = await break_it(engine, loader, part, error)
        assert [type(answer) for answer in answers] == [StepError] * 3
        await until_ready(engine)
        assert await asyncio.gather(*(collect(engine, str(i), PROMPTS[i], GREEDY) for i in range(3))) == expected
        assert (len(loader.cores), loader.num_alive_at_load) == (2, [0, 0]), (
            "the old core was freed before the new came"
        )
        assert not engine._life._has_failed.is_set()
        await engine.shutdown()

    asyncio.run(main())


def test_a_core_in_a_circle_that_was_set_apart_from_collections_is_freed(checkpoint: Path) -> None:
    """The server does so with all that it has loaded."""

    async def main() -> None:
        loader = Loader(checkpoint)
        loader.may_load.set()
        engine = AsyncLLMEngine(loader)
        await engine.start()
        vars(loader.cores[0]())["itself"] = loader.cores[0]()
        gc.freeze()
        await break_it(engine, loader, scheduling)
        await until_ready(engine)
        assert loader.num_alive_at_load == [0, 0]
        await engine.shutdown()

    asyncio.run(main())


def test_while_it_is_built_anew_it_is_loading(checkpoint: Path) -> None:
    """503 with Retry-After, as at the start; counters go on, and the waiting room is empty."""

    async def main() -> None:
        loader = Loader(checkpoint)
        engine = AsyncLLMEngine(loader)
        await engine.start()
        await collect(engine, "first", PROMPTS[0], GREEDY)
        await break_it(engine, loader, scheduling)
        assert engine.status is EngineStatus.LOADING
        num_queries = engine.stats().prefix_cache_queries
        assert num_queries >= len(PROMPTS[0])
        assert (engine.stats().num_running, engine.stats().num_waiting) == (0, 0)
        for ask in (engine.check_admission, lambda: engine.tokenizer, lambda: engine.info):
            with pytest.raises(EngineNotReadyError, match="loading"):
                ask()
        with pytest.raises(EngineNotReadyError, match="loading"):
            await collect(engine, "early", PROMPTS[0], GREEDY)
        loader.may_load.set()
        await until_ready(engine)
        await collect(engine, "second", PROMPTS[0], GREEDY)
        assert engine.stats().prefix_cache_queries == num_queries + len(PROMPTS[0])
        assert engine._clients.room.total.num_sequences == 0
        await engine.shutdown()

    asyncio.run(main())


def test_after_three_deaths_only_a_new_process_helps(checkpoint: Path) -> None:
    async def main() -> None:
        loader = Loader(checkpoint)
        loader.may_load.set()
        engine = AsyncLLMEngine(loader)
        await engine.start()
        failed = asyncio.create_task(engine.failed())
        for _ in range(2):
            await break_it(engine, loader, scheduling)
            await until_ready(engine)
        assert not failed.done()
        await break_it(engine, loader, scheduling)
        await asyncio.wait_for(failed, 5)
        assert engine.status is EngineStatus.DEAD
        await engine.shutdown()

    asyncio.run(main())


def test_deaths_far_apart_are_forgiven(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.engine_life.DEATHS_WITHIN_S", 0.0)

    async def main() -> None:
        loader = Loader(checkpoint)
        loader.may_load.set()
        engine = AsyncLLMEngine(loader)
        await engine.start()
        for _ in range(4):
            await break_it(engine, loader, scheduling)
            await until_ready(engine)
        await engine.shutdown()

    asyncio.run(main())


def test_what_cannot_be_loaded_again_has_failed(checkpoint: Path) -> None:
    async def main() -> None:
        loader = Loader(checkpoint, errors=[None, ValueError("the weights are gone")])
        loader.may_load.set()
        engine = AsyncLLMEngine(loader)
        await engine.start()
        await break_it(engine, loader, scheduling)
        await asyncio.wait_for(engine.failed(), 5)
        assert engine.status is EngineStatus.DEAD
        with pytest.raises(EngineNotReadyError):
            await collect(engine, "late", PROMPTS[0], GREEDY)
        await engine.shutdown()

    asyncio.run(main())


def test_drain_and_shutdown_while_it_is_built_anew(checkpoint: Path) -> None:
    async def main() -> None:
        loader = Loader(checkpoint)
        engine = AsyncLLMEngine(loader)
        await engine.start()
        await break_it(engine, loader, scheduling)
        await asyncio.wait_for(engine.drain(timeout_s=5), 1)
        loader.may_load.set()
        assert engine._life._reviving is not None
        await engine._life._reviving
        assert engine.status is EngineStatus.DRAINING
        await engine.shutdown()

    async def shut_down_at_once() -> None:
        loader = Loader(checkpoint)
        engine = AsyncLLMEngine(loader)
        await engine.start()
        await break_it(engine, loader, scheduling)
        await engine.shutdown()
        loader.may_load.set()

    asyncio.run(main())
    asyncio.run(shut_down_at_once())
    for thread in threading.enumerate():
        if thread.name == "engine":
            thread.join(10)


def test_a_death_while_draining_ends_what_is_left(checkpoint: Path) -> None:
    async def main() -> None:
        loader = Loader(checkpoint)
        engine = AsyncLLMEngine(loader)
        await engine.start()
        tasks = [asyncio.create_task(collect(engine, f"r{i}", PROMPTS[i], LONG)) for i in range(3)]
        draining = asyncio.create_task(engine.drain(timeout_s=20))
        while engine.stats().num_running < 2:
            await asyncio.sleep(0.005)
        loader.sabotage(scheduling, RuntimeError("broken on purpose"))
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StepError] * 3
        await asyncio.wait_for(draining, 5)
        assert (engine.status, len(loader.cores)) == (EngineStatus.DRAINING, 1)
        await engine.shutdown()

    asyncio.run(main())


def test_a_request_that_cannot_be_added_ends_alone(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised: it concerns this request."""

    async def main() -> None:
        loader = Loader(checkpoint)
        engine = AsyncLLMEngine(loader)
        await engine.start()
        other = asyncio.create_task(collect(engine, "other", PROMPTS[0], LONG))
        while engine.stats().num_running < 1:
            await asyncio.sleep(0.005)
        with monkeypatch.context() as patched:
            patched.setattr("engine.request_state.Detokenizer", raise_(RuntimeError("broken on purpose")))
            with pytest.raises(StepError):
                await collect(engine, "culprit", PROMPTS[1], GREEDY)
        assert len(await other) == LONG.max_tokens
        assert engine.status is EngineStatus.READY
        await engine.shutdown()

    asyncio.run(main())


def test_news_that_cannot_be_told_end_their_request_alone(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loader = Loader(checkpoint)
        engine = AsyncLLMEngine(loader)
        await engine.start()
        tasks = [asyncio.create_task(collect(engine, f"r{i}", PROMPTS[i], GREEDY)) for i in range(2)]
        await asyncio.sleep(0)
        engine._clients["r0"].news.put = raise_(RuntimeError("broken on purpose"))  # type: ignore[method-assign]
        culprit, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(culprit, StepError)
        assert len(other) == GREEDY.max_tokens
        await engine.shutdown()

    asyncio.run(main())
