"""The engine behind the event loop: delivery, aborts in every phase, failures of one request, deadlines, the end."""

import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

from engine.async_engine import AsyncLLMEngine
from engine.engine_info import EngineStatus
from engine.errors import (
    EngineNotReadyError,
    QueueFullError,
    QueueTimeoutError,
    RequestError,
    StepError,
)
from engine.loading import LoadedEngine
from engine.outputs import FinishReason
from engine.sampling_params import SamplingParams
from tests.engine.engines import GREEDY, load, run, tiny_checkpoint

PROMPT = [2, 150, 151, 152]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("async") / "model")


@asynccontextmanager
async def running(
    checkpoint: Path, prepare: Callable[[LoadedEngine], None] = lambda loaded: None, **limits: float
) -> AsyncIterator[tuple[AsyncLLMEngine, LoadedEngine]]:
    loaded = load(checkpoint, max_num_seqs=8)
    prepare(loaded)
    engine = AsyncLLMEngine(lambda: loaded, **limits)  # type: ignore[arg-type]
    await engine.start()
    try:
        yield engine, loaded
    finally:
        await engine.shutdown()
        loaded.core.scheduler.check_integrity()


async def collect(engine: AsyncLLMEngine, request_id: str, prompt: list[int], params: SamplingParams) -> list[int]:
    token_ids: list[int] = []
    async for output in engine.generate(request_id, prompt, params):
        for delta in output.deltas:
            token_ids += delta.token_ids
    return token_ids


def random_prompts(num: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[2] + [rng.randrange(107, 363) for _ in range(rng.randint(1, 60))] for _ in range(num)]


def open_files() -> Counter[str]:
    """What this process has open, when the threads beside its engines have ended: one that imports has files open."""
    for thread in threading.enumerate():
        if thread.name in ("vocabulary-table", "weights-check"):
            thread.join(60)
    gc.collect()
    with os.scandir("/proc/self/fd") as entries:
        return Counter(os.readlink(entry.path) for entry in entries)


@pytest.mark.slow
def test_a_thousand_requests_with_random_aborts(checkpoint: Path) -> None:
    """Concurrency 32, a third given up in any phase: the others answer as alone, and nothing stays behind."""
    prompts = random_prompts(40)
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    expected = run(load(checkpoint), {str(i): prompt for i, prompt in enumerate(prompts)}, params)

    async def one(engine: AsyncLLMEngine, number: int, rng: random.Random) -> None:
        which = number % len(prompts)
        if rng.random() < 1 / 3:
            task = asyncio.create_task(collect(engine, f"r{number}", prompts[which], params))
            await asyncio.sleep(rng.choice((0, 0.001, 0.01, 0.05)))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            assert await collect(engine, f"r{number}", prompts[which], params) == expected[str(which)][0].token_ids

    async def main() -> None:
        async with running(checkpoint) as (engine, loaded):
            gate, rng = asyncio.Semaphore(32), random.Random(1)

            async def gated(number: int) -> None:
                async with gate:
                    await one(engine, number, rng)

            await asyncio.gather(*(gated(number) for number in range(1_000)))
            while engine.stats().num_running or engine.stats().num_waiting:
                await asyncio.sleep(0.01)
            assert engine.stats().kv_cache_usage == 0
            assert len(asyncio.all_tasks()) == 1
            assert not loaded.core.has_unfinished_requests

    files_before = open_files()
    asyncio.run(main())
    assert not any(thread.name == "engine" for thread in threading.enumerate())
    assert not open_files() - files_before


def break_on(loaded: LoadedEngine, *, token_id: int, how: str) -> None:
    """Let the model fail on sequences that hold ``token_id``: by an exception of the whole step, or by NaN in their rows."""
    runner = loaded.core._runner
    whole_run, forward = runner.run, runner._forward

    def run_or_raise(batch: object) -> object:
        if how == "raise" and any(token_id in item.seq.token_ids for item in batch.scheduled):
            raise RuntimeError("broken on purpose")
        return whole_run(batch)

    def forward_with_nan(batch: object) -> torch.Tensor:
        hidden, row = forward(batch).clone(), 0
        for item in batch.scheduled:
            if how == "nan" and token_id in item.seq.token_ids:
                hidden[row : row + item.num_rows] = torch.nan
            row += item.num_rows
        return hidden

    runner.run, runner._forward = run_or_raise, forward_with_nan


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_failing_step_fails_one_request_alone(checkpoint: Path, how: str) -> None:
    prompts = random_prompts(6, seed=3)
    expected = run(load(checkpoint), {str(i): prompt for i, prompt in enumerate(prompts)}, GREEDY)
    assert not any(99 in prompt or 99 in expected[str(i)][0].token_ids for i, prompt in enumerate(prompts))

    async def main() -> list[list[int] | BaseException]:
        async with running(checkpoint, lambda loaded: break_on(loaded, token_id=99, how=how)) as (engine, _):
            everyone = [collect(engine, str(i), prompt, GREEDY) for i, prompt in enumerate([*prompts, [2, 99, 150]])]
            answers = await asyncio.gather(*everyone, return_exceptions=True)
            assert engine.status is EngineStatus.READY
            return answers

    *answers, culprit = asyncio.run(main())
    assert isinstance(culprit, StepError)
    assert answers == [expected[str(i)][0].token_ids for i in range(len(prompts))]


@pytest.mark.parametrize(
    ("prompt", "params", "param"),
    [
        ([], GREEDY, "prompt"),
        ([363], GREEDY, "prompt"),
        ([-1], GREEDY, "prompt"),
        (PROMPT, SamplingParams(stop_token_ids=(363,)), "stop_token_ids"),
        (PROMPT, SamplingParams(logit_bias={363: 1.0}), "logit_bias"),
        ([2] * 600, SamplingParams(max_tokens=None), "prompt"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_at_the_door(
    checkpoint: Path, prompt: list[int], params: SamplingParams, param: str
) -> None:
    async def main() -> None:
        async with running(checkpoint) as (engine, _):
            with pytest.raises(RequestError) as caught:
                await collect(engine, "r", prompt, params)
            assert caught.value.param == param
            assert len(await collect(engine, "s", PROMPT, GREEDY)) == GREEDY.max_tokens

    asyncio.run(main())


def test_full_queue(checkpoint: Path) -> None:
    async def main() -> None:
        async with running(checkpoint, max_num_waiting=6) as (engine, _):
            tasks = [asyncio.create_task(collect(engine, str(i), PROMPT, GREEDY)) for i in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError) as caught:
                await collect(engine, "one too many", PROMPT, GREEDY)
            assert 1 <= caught.value.retry_after_s <= 120
            assert all(len(answer) == GREEDY.max_tokens for answer in await asyncio.gather(*tasks))

    asyncio.run(main())


def test_who_waits_too_long_gives_up_its_place(checkpoint: Path) -> None:
    long = SamplingParams(temperature=0.0, max_tokens=250, ignore_eos=True)

    async def main() -> None:
        async with running(checkpoint, queue_timeout_s=0.3) as (engine, loaded):
            # Eight take every seat, for as long as they like; the ninth waits.
            tasks = [asyncio.create_task(collect(engine, str(i), PROMPT, long)) for i in range(9)]
            *answers, late = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(late, QueueTimeoutError)
            assert all(len(answer) == long.max_tokens for answer in answers)
            while loaded.core.has_unfinished_requests:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_loading_that_fails_is_raised() -> None:
    def load_nothing() -> LoadedEngine:
        raise ValueError("no weights")

    async def main() -> None:
        engine = AsyncLLMEngine(load_nothing)
        with pytest.raises(ValueError, match="no weights"):
            await engine.start()
        assert engine.status is EngineStatus.DEAD
        with pytest.raises(EngineNotReadyError):
            await collect(engine, "r", PROMPT, GREEDY)
        await engine.shutdown()

    asyncio.run(main())


def test_drain(checkpoint: Path) -> None:
    """Running requests finish, new ones are refused; at the deadline the rest get an error."""

    async def main() -> None:
        async with running(checkpoint) as (engine, _):
            task = asyncio.create_task(collect(engine, "r", PROMPT, GREEDY))
            await asyncio.sleep(0)
            draining = asyncio.create_task(engine.drain(timeout_s=30))
            await asyncio.sleep(0)
            with pytest.raises(EngineNotReadyError):
                await collect(engine, "late", PROMPT, GREEDY)
            await draining
            assert len(await task) == GREEDY.max_tokens
        async with running(checkpoint) as (engine, _):
            long = SamplingParams(temperature=0.0, max_tokens=500, ignore_eos=True)
            task = asyncio.create_task(collect(engine, "r", PROMPT, long))
            await asyncio.sleep(0)
            await engine.drain(timeout_s=0.0)
            with pytest.raises(EngineNotReadyError):
                await task

    asyncio.run(main())


def test_an_engine_that_has_ended_makes_no_table(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may end next, and must not take the interpreter apart under a thread in the grammars' library."""
    monkeypatch.setattr("engine.vocabulary_table.DELAY_S", 0.0)
    has_begun, is_made = threading.Event(), threading.Event()

    def build() -> None:
        has_begun.set()
        time.sleep(0.3)
        is_made.set()

    async def main() -> None:
        async with running(checkpoint, lambda loaded: monkeypatch.setattr(loaded.grammars, "build", build)):
            assert await asyncio.to_thread(has_begun.wait, 60)
        assert is_made.is_set()

    asyncio.run(main())


def test_memory_is_given_back_when_idle(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks but those of the latest prefix; and what follows is what it was."""
    monkeypatch.setattr("engine.engine_thread.IDLE_S", 0.05)
    num_released, done = dict[bool, int](), threading.Event()

    def release_blocks(block_ids: list[int], *, is_sliding: bool) -> None:
        num_released[is_sliding] = len(block_ids)
        if len(num_released) == 2:
            done.set()

    async def main() -> None:
        async with running(
            checkpoint, lambda loaded: monkeypatch.setattr(loaded.core._runner, "release_blocks", release_blocks)
        ) as (engine, loaded):
            first = await collect(engine, "a", PROMPT, GREEDY)  # 28 tokens: a block is full
            assert await asyncio.to_thread(done.wait, 30.0)
            counts = loaded.core.scheduler._kv.counts
            assert num_released == {False: counts.num_global - 1, True: counts.num_sliding - 1}
            assert await collect(engine, "b", PROMPT, GREEDY) == first

    asyncio.run(main())


def test_outputs_tell_the_whole_story(checkpoint: Path) -> None:
    """The first output comes when the request leaves the queue; the last is marked; reasons come once per sequence."""

    async def main() -> None:
        async with running(checkpoint) as (engine, _):
            params = SamplingParams(
                temperature=1.0, seed=3, max_tokens=5, n=2, logprobs=1, prompt_logprobs=0, ignore_eos=True
            )
            outputs = [output async for output in engine.generate("r", PROMPT, params)]
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
        deltas = [delta for output in outputs for delta in output.deltas]
        for index in range(2):
            mine = [delta for delta in deltas if delta.index == index]
            assert [delta.finish_reason for delta in mine] == [None] * 4 + [FinishReason.LENGTH]
            assert all(len(delta.logprobs) == len(delta.token_ids) == 1 for delta in mine)
        prompt_logprobs = next(output.prompt_logprobs for output in outputs if output.prompt_logprobs)
        assert prompt_logprobs[0] is None
        assert [entry.token_id for entry in prompt_logprobs[1:]] == PROMPT[1:]

    asyncio.run(main())
