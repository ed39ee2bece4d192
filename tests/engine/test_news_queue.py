"""News on the way to their reader: in order, nothing lost, and never more than the answer itself."""

import asyncio
import random

import pytest

from engine.errors import StepError
from engine.news_queue import MAX_UNREAD, News, NewsQueue
from engine.outputs import FinishReason, RequestOutput, SequenceDelta, TokenLogprob, joined
from tests.engine.table_engine import told

NUM_SEQUENCES = 3


def answer(num_steps: int, seed: int = 0, *, with_logprobs: bool = True) -> list[RequestOutput]:
    """Of a request with three sequences that end at different steps; the first output has no
    deltas.
    """
    rng = random.Random(seed)
    ends = [num_steps, rng.randint(1, num_steps), rng.randint(1, num_steps)]
    outputs = [RequestOutput("r", (), finished=False, num_prompt_tokens=4)]
    for step in range(1, num_steps + 1):
        deltas = tuple(
            delta(index, step, rng, is_last=step == end, with_logprobs=with_logprobs)
            for index, end in enumerate(ends)
            if step <= end
        )
        outputs.append(
            RequestOutput(
                "r",
                deltas,
                finished=step == num_steps,
                num_prompt_tokens=4,
                num_cached_tokens=2,
                prompt_logprobs=(None, TokenLogprob(3, -1.0)) if step == 1 else None,
            )
        )
    return outputs


def delta(index: int, step: int, rng: random.Random, *, is_last: bool, with_logprobs: bool) -> SequenceDelta:
    token_ids = tuple(rng.randrange(100) for _ in range(rng.choice([1, 1, 3])))
    return SequenceDelta(
        index,
        rng.choice(["", f"{index}.{step} "]),
        token_ids,
        tuple(TokenLogprob(token_id, -step) for token_id in token_ids) if with_logprobs else None,
        FinishReason.STOP if is_last else None,
        7 if is_last else None,
        num_accepted_predictions=rng.choice([0, 1]),
        num_rejected_predictions=rng.choice([0, 2]),
    )


def predictions(outputs: list[RequestOutput]) -> list[tuple[int, int]]:
    deltas = [delta for output in outputs for delta in output.deltas]
    return [
        (
            sum(each.num_accepted_predictions for each in deltas if each.index == index),
            sum(each.num_rejected_predictions for each in deltas if each.index == index),
        )
        for index in range(NUM_SEQUENCES)
    ]


def assert_same(got: list[RequestOutput], sent: list[RequestOutput]) -> None:
    assert told(got, NUM_SEQUENCES) == told(sent, NUM_SEQUENCES)
    assert predictions(got) == predictions(sent)
    assert [output.finished for output in got] == [False] * (len(got) - 1) + [True]
    first = next(output for output in got if output.deltas)
    assert (first.num_cached_tokens, first.prompt_logprobs is None) == (2, False), "told with the first deltas"
    for output in got:
        indices = [each.index for each in output.deltas]
        assert len(indices) == len(set(indices)), "a sequence has one delta in an output"


async def read(queue: NewsQueue, num: int) -> list[News]:
    return [await queue.get() for _ in range(num)]


@pytest.mark.parametrize("with_logprobs", [True, False])
@pytest.mark.parametrize("num_steps", [1, MAX_UNREAD - 2, MAX_UNREAD, MAX_UNREAD + 1, 1_000])
def test_a_stalled_reader_misses_nothing(num_steps: int, with_logprobs: bool) -> None:
    sent, queue = answer(num_steps, with_logprobs=with_logprobs), NewsQueue()
    for output in sent:
        queue.put(output)
        assert len(queue) <= MAX_UNREAD
    got = asyncio.run(read(queue, len(queue)))
    assert_same(got, sent)  # type: ignore[arg-type]
    if len(sent) <= MAX_UNREAD:
        assert got == sent


@pytest.mark.parametrize("seed", range(20))
def test_a_reader_that_stalls_now_and_then(seed: int) -> None:
    sent, queue, rng = answer(700, seed), NewsQueue(), random.Random(seed)

    async def main() -> list[News]:
        got: list[News] = []
        for output in sent:
            queue.put(output)
            if rng.random() < 0.02:
                got += await read(queue, rng.randint(1, len(queue)))
        return got + await read(queue, len(queue))

    assert_same(asyncio.run(main()), sent)  # type: ignore[arg-type]


def test_a_reader_that_keeps_up_gets_each_output_as_it_was_told() -> None:
    sent, queue = answer(300), NewsQueue()

    async def main() -> list[News]:
        reading = asyncio.create_task(read(queue, len(sent)))
        for output in sent:
            queue.put(output)
            await asyncio.sleep(0)
        return await reading

    assert asyncio.run(main()) == sent


def test_an_error_is_told_after_what_came_before_it() -> None:
    sent, queue = answer(500)[:-1], NewsQueue()
    for output in sent:
        queue.put(output)
    for text in ("first", "second"):
        queue.put(StepError(text))
    while len(queue) < MAX_UNREAD:
        queue.put(StepError("later"))
    queue.put(StepError("last"))
    *outputs, first, last = asyncio.run(read(queue, len(queue)))
    assert told(outputs, NUM_SEQUENCES) == told(sent, NUM_SEQUENCES)  # type: ignore[arg-type]
    assert [str(first), str(last)] == ["first", "last"]


def test_a_reader_that_was_cancelled_may_be_followed_by_another() -> None:
    queue = NewsQueue()

    async def main() -> News:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await queue.get()
        reading = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.put(StepError("told"))
        return await reading

    assert str(asyncio.run(main())) == "told"


def test_one_output_joined_is_itself() -> None:
    for output in answer(3):
        assert joined([output]) == output
