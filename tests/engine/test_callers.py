"""Callers behind the event loop: whose turn it is, whose cached prefixes, how much of the queue,
and who gives up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.async_engine import AsyncLLMEngine
from engine.caller import ANYBODY, Caller
from engine.errors import QueueFullError, QueueTimeoutError
from engine.loading import LoadedEngine
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from tests.engine.engines import GREEDY, load, tiny_checkpoint

A, B = Caller(name="a", prefix_salt="salt of a"), Caller(name="b", prefix_salt="salt of b")
PROMPT = [2, *range(150, 200)]
SHORT = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
ENDLESS = SamplingParams(temperature=1.0, seed=5, max_tokens=440, ignore_eos=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("callers") / "model")


@asynccontextmanager
async def running(checkpoint: Path, *, prefix_caching: bool = True, **limits: float) -> AsyncIterator[AsyncLLMEngine]:
    loaded: LoadedEngine = load(checkpoint, max_num_seqs=2, prefix_caching=prefix_caching)
    engine = AsyncLLMEngine(lambda: loaded, **limits)  # type: ignore[arg-type]
    await engine.start()
    try:
        yield engine
    finally:
        await engine.shutdown()
        loaded.core.scheduler.check_integrity()
        assert engine._clients.room.total.num_sequences == engine._clients.room.total.num_prompt_tokens == 0


async def outputs(
    engine: AsyncLLMEngine, request_id: str, params: SamplingParams = SHORT, *, caller: Caller = ANYBODY
) -> list[RequestOutput]:
    return [output async for output in engine.generate(request_id, PROMPT, params, caller=caller)]


async def idle(engine: AsyncLLMEngine) -> None:
    while engine.stats().num_running or engine.stats().num_waiting:
        await asyncio.sleep(0.005)


def cached(outputs: list[RequestOutput]) -> int:
    return max(output.num_cached_tokens for output in outputs)


def said(outputs: list[RequestOutput]) -> list[int]:
    return [token_id for output in outputs for delta in output.deltas for token_id in delta.token_ids]


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_prefixes_are_found_under_the_same_salt_only(checkpoint: Path, prefix_caching: bool) -> None:
    """Salts that look like a request's id are salts of a caller all the same."""
    callers = [A, B, A, B, ANYBODY, ANYBODY, Caller(name="a", prefix_salt="r0")]

    async def main() -> None:
        async with running(checkpoint, prefix_caching=prefix_caching) as engine:
            answers = [await outputs(engine, f"r{i}", GREEDY, caller=caller) for i, caller in enumerate(callers)]
            expected = [0, 0, 48, 48, 0, 48, 0] if prefix_caching else [0] * 7
            assert [cached(answer) for answer in answers] == expected
            assert all(said(answer) == said(answers[0]) for answer in answers)

    asyncio.run(main())


def test_one_request_does_not_wait_behind_anothers_fifty(checkpoint: Path) -> None:
    async def main() -> None:
        async with running(checkpoint) as engine:
            many = [asyncio.create_task(outputs(engine, f"many {i}", caller=A)) for i in range(50)]
            await asyncio.sleep(0)
            await outputs(engine, "single", caller=B)
            assert sum(task.done() for task in many) < 10
            await asyncio.gather(*many)

    asyncio.run(main())


def test_nobody_fills_the_queue_alone(checkpoint: Path) -> None:
    """Every sequence and every prompt counts until its first output, and a refused one counts for
    nothing.
    """

    async def main() -> None:
        async with running(checkpoint, max_num_waiting=16) as engine:
            four = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True, n=4)
            tasks = [asyncio.create_task(outputs(engine, f"a{i}", four, caller=A)) for i in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError, match="8 sequences wait already, 8 of them yours; at most 16 may"):
                await outputs(engine, "a2", four, caller=A)
            tasks.append(asyncio.create_task(outputs(engine, "b0", caller=B)))
            await asyncio.gather(*tasks)
            await outputs(engine, "a3", four, caller=A)

    asyncio.run(main())


def test_prompt_tokens_are_bounded(checkpoint: Path) -> None:
    async def main() -> None:
        async with running(checkpoint, max_waiting_prompt_tokens=2 * len(PROMPT)) as engine:
            first = asyncio.create_task(outputs(engine, "first", caller=A))
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError, match="prompt tokens"):
                await outputs(engine, "second", caller=A)
            await asyncio.gather(first, outputs(engine, "third", caller=B))

    asyncio.run(main())


def test_a_long_list_of_prompts_is_let_in_as_one(checkpoint: Path) -> None:
    """It is more than a caller may have waiting, and would be refused forever; the next request is
    refused.
    """

    async def main() -> None:
        async with running(checkpoint, max_num_waiting=8) as engine:
            prompts = [
                engine.generate(f"list {i}", PROMPT, SHORT, caller=A, is_further_prompt=i > 0) for i in range(20)
            ]
            tasks = [asyncio.ensure_future(anext(prompt)) for prompt in prompts]
            await asyncio.sleep(0)
            for caller in (A, B):
                with pytest.raises(QueueFullError):
                    await outputs(engine, "next", caller=caller)
            await asyncio.gather(*tasks)
            for prompt in prompts:
                await prompt.aclose()

    asyncio.run(main())


def test_a_thousand_that_give_up_at_once(checkpoint: Path) -> None:
    """Two keep the seats; a thousand wait and go away; then the queue is empty and the next is
    served.
    """

    async def main() -> None:
        async with running(checkpoint) as engine:
            seated = [asyncio.create_task(outputs(engine, f"seated {i}", ENDLESS, caller=A)) for i in range(2)]
            waiting = [asyncio.create_task(outputs(engine, f"w{i}", caller=(A, B)[i % 2])) for i in range(1_000)]
            while engine.stats().num_waiting < 900:
                await asyncio.sleep(0.005)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for task in seated:
                task.cancel()
            await asyncio.gather(*seated, return_exceptions=True)
            await idle(engine)
            assert said(await outputs(engine, "next", caller=B))

    asyncio.run(main())


def test_the_time_in_the_queue_counts_from_arrival(checkpoint: Path) -> None:
    """While others hold the seats, who waits too long goes, whoever is first in turn; its place is
    free again.
    """

    async def main() -> None:
        async with running(checkpoint) as engine:
            seated = [asyncio.create_task(outputs(engine, f"seated {i}", ENDLESS, caller=A)) for i in range(2)]
            while engine.stats().num_running < 2:
                await asyncio.sleep(0.005)
            engine._queue_timeout_s = 0.05
            late = [asyncio.create_task(outputs(engine, f"late {i}", caller=(A, B)[i % 2])) for i in range(6)]
            ends = await asyncio.gather(*late, return_exceptions=True)
            assert all(isinstance(end, QueueTimeoutError) for end in ends)
            assert engine._clients.room.total.num_sequences == 0
            for task in seated:
                task.cancel()
            await asyncio.gather(*seated, return_exceptions=True)

    asyncio.run(main())


def test_drain_serves_those_that_wait(checkpoint: Path) -> None:
    async def main() -> None:
        async with running(checkpoint) as engine:
            tasks = [asyncio.create_task(outputs(engine, f"r{i}", caller=(A, B)[i % 2])) for i in range(20)]
            await asyncio.sleep(0)
            await engine.drain(timeout_s=30)
            assert all(len(said(answer)) == SHORT.max_tokens for answer in await asyncio.gather(*tasks))

    asyncio.run(main())


def test_a_stalled_reader_gets_the_whole_answer(checkpoint: Path) -> None:
    async def main() -> None:
        async with running(checkpoint) as engine:
            params = replace(ENDLESS, max_tokens=100)
            expected = await outputs(engine, "quick", params)
            slow, got = engine.generate("slow", PROMPT, params), []
            got.append(await anext(slow))
            await idle(engine)
            assert len(engine._clients["slow"].news) <= 64
            got += [output async for output in slow]
            assert said(got) == said(expected)
            texts = [[delta.text for output in each for delta in output.deltas] for each in (got, expected)]
            assert "".join(texts[0]) == "".join(texts[1])
            assert len(got) <= 65 < len(expected)

    asyncio.run(main())
