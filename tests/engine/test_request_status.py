"""What can be seen of requests while they run: true counts, never content, and nothing of it costs an idle engine."""

import asyncio
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from engine import request_watch
from engine.async_engine import AsyncLLMEngine
from engine.caller import Caller
from engine.commands import Abort, Add, Look
from engine.request_status import RequestPhase, RequestStatus
from engine.sampling_params import SamplingParams
from tests.engine.engines import tiny_checkpoint
from tests.engine.test_async_engine import PROMPT, collect, running


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("status") / "model")


def greedy(num_tokens: int, **settings: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, **settings)  # type: ignore[arg-type]


async def watched(engine: AsyncLLMEngine, work: "asyncio.Future[object]") -> list[RequestStatus]:
    """Every row that is seen until ``work`` is done, in order."""
    seen: list[RequestStatus] = []
    while not work.done():
        seen += await engine.request_statuses()
        await asyncio.sleep(0)
    return seen


def test_a_row_grows_with_its_request_and_goes_with_it(checkpoint: Path) -> None:
    async def main() -> None:
        async with running(checkpoint) as (engine, _):
            alone = await collect(engine, "alone", PROMPT, greedy(40))
            work = asyncio.ensure_future(collect(engine, "watched", PROMPT, greedy(40)))
            seen = await watched(engine, work)
            assert work.result() == alone, "whoever watches changes nothing"
            assert await engine.request_statuses() == []
            assert {status.request_id for status in seen} == {"watched"}
            rows = [status for status in seen if status.phase is RequestPhase.DECODE]
            assert len({row.num_output_tokens for row in rows}) > 3
            for one, next_one in pairwise(rows):
                assert one.num_output_tokens <= next_one.num_output_tokens <= 40
                assert one.num_computed_tokens <= next_one.num_computed_tokens
                assert one.age_s <= next_one.age_s
            for row in rows:
                assert (row.num_prompt_tokens, row.max_output_tokens) == (len(PROMPT), 40)
                assert row.num_computed_tokens == len(PROMPT) + row.num_output_tokens - 1
            assert engine.stats().num_output_tokens == 80

    asyncio.run(main())


def test_who_waits_is_seen_too(checkpoint: Path) -> None:
    """Eight run, the others wait; of two choices the tokens are counted together."""

    async def main() -> None:
        async with running(checkpoint) as (engine, _):
            tasks = [
                asyncio.ensure_future(collect(engine, f"r{number}", [*PROMPT, 153 + number], greedy(12, n=2)))
                for number in range(6)
            ]
            seen = await watched(engine, asyncio.gather(*tasks))
            assert {status.phase for status in seen} >= {RequestPhase.WAITING, RequestPhase.DECODE}
            assert {status.request_id for status in seen} == {f"r{number}" for number in range(6)}
            assert max(status.num_output_tokens for status in seen) > 12
            for status in seen:
                assert (status.num_sequences, status.max_output_tokens) == (2, 24)
                assert status.phase is not RequestPhase.WAITING or status.num_output_tokens == 0

    asyncio.run(main())


def test_a_scored_request_generates_nothing(checkpoint: Path) -> None:
    async def main() -> None:
        async with running(checkpoint) as (engine, _):
            caller = Caller(name="me")
            options = [[150 + number, 151, number + 110] for number in range(40)]
            work = asyncio.ensure_future(engine.score("s", PROMPT * 40, options, caller=caller))
            seen = await watched(engine, work)
            assert seen
            assert {(row.num_output_tokens, row.caller_name, row.is_scoring) for row in seen} == {(0, "me", True)}

    asyncio.run(main())


def test_there_is_nothing_but_counts_in_a_row() -> None:
    """No text and no token can be in it."""
    types = {field.name: field.type for field in fields(RequestStatus)}
    words = {name for name, kind in types.items() if kind not in (int, int | None, float, bool)}
    assert words == {"request_id", "caller_name", "phase"}


def test_an_idle_engine_is_not_asked_and_a_busy_one_once_a_step(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with running(checkpoint) as (engine, _):
            looks: list[Look] = []
            send = engine._life._thread.send

            def noted(command: Add | Abort | Look) -> None:
                if isinstance(command, Look):
                    looks.append(command)
                send(command)

            monkeypatch.setattr(engine._life._thread, "send", noted)
            for _ in range(5):
                assert await engine.request_statuses() == []
            assert looks == []
            work = asyncio.ensure_future(collect(engine, "r", PROMPT, greedy(60)))
            await asyncio.sleep(0.01)
            answers = await asyncio.gather(*(engine.request_statuses() for _ in range(50)))
            assert len(looks) == 1, "who asks meanwhile gets the answer that is on its way"
            assert all([row.request_id for row in rows] == ["r"] for rows in answers)
            await work

    asyncio.run(main())


def test_a_thread_that_answers_nobody_keeps_nobody_waiting(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_watch, "PATIENCE_S", 0.05)

    async def main() -> None:
        watch = request_watch.RequestWatch()
        sent: list[Look] = []
        assert await watch.look(sent.append) == ()
        late = asyncio.ensure_future(watch.look(sent.append))
        await asyncio.sleep(0)
        assert len(sent) == 2
        sent[0].tell(())
        assert await asyncio.wait_for(late, 1) == ()

    asyncio.run(main())
