"""Log probabilities of known continuations: exactly those of a prompt's tokens, whatever else is computed and how."""

import asyncio
import math
import random
from collections import abc
from pathlib import Path

import pytest

from engine.async_engine import AsyncLLMEngine
from engine.caller import Caller
from engine.engine_core import EngineCore
from engine.errors import EngineError, RequestError, StepError
from engine.loading import LoadedEngine
from engine.outputs import ContinuationScores, RequestOutput, TokenLogprob
from engine.sampling_params import SamplingParams
from engine.scoring import MAX_CONTINUATIONS, SCORING, Scoring
from tests.engine.engines import load, tiny_checkpoint
from tests.engine.fakes import Setup
from tests.engine.table_engine import VOCAB_SIZE, TableEngine, random_table

Scores = tuple[tuple[float, ...], ...]
TABLE = random_table(5, scale=2.0)


def random_tokens(rng: random.Random, num_tokens: int) -> tuple[int, ...]:
    return tuple(rng.choices(range(1, VOCAB_SIZE), k=num_tokens))


def random_tree(rng: random.Random, num: int) -> list[tuple[int, ...]]:
    """Continuations that often begin alike; some are the beginning of another, some are there twice."""
    found = [random_tokens(rng, rng.randint(1, 6))]
    while len(found) < num:
        stem = rng.choice(found)
        found.append((*stem[: rng.randint(0, len(stem))], *random_tokens(rng, rng.randint(0, 4))) or stem)
    return found


def by_prompt_logprobs(
    core: EngineCore, prompt: abc.Sequence[int], continuations: abc.Iterable[tuple[int, ...]]
) -> Scores:
    """What ``/v1/completions`` tells with ``echo`` and ``logprobs``."""
    told = []
    for tokens in continuations:
        core.add_request("echo", [*prompt, *tokens], SamplingParams(max_tokens=0, prompt_logprobs=0))
        (output,) = [out for out in steps(core) if out.prompt_logprobs]
        told.append(tuple(entry.logprob for entry in output.prompt_logprobs[len(prompt) :]))
    return tuple(told)


def rounded(scores: Scores) -> list[list[float]]:
    """Torch sums a row among many in another order than a row alone."""
    return [[round(each, 3) for each in tokens] for tokens in scores]


def steps(core: EngineCore) -> list[RequestOutput]:
    outputs = []
    while core.has_unfinished_requests:
        result = core.step()
        core.scheduler.check_integrity()
        assert not result.errors, result.errors
        outputs += result.outputs
    return outputs


def scored(
    core: EngineCore, requests: abc.Mapping[str, tuple[abc.Sequence[int], list[tuple[int, ...]]]]
) -> dict[str, Scores]:
    for name, (prompt, continuations) in requests.items():
        core.add_scoring_request(name, prompt, continuations)
    return {output.request_id: output.scores for output in steps(core) if output.finished}


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_prompt_tokens_alone_batched_cached_and_preempted(seed: int) -> None:
    rng = random.Random(seed)
    shared = random_tokens(rng, 9)
    requests = {
        f"r{i}": ((*shared, *random_tokens(rng, rng.randint(0, 7))), random_tree(rng, rng.randint(1, 9)))
        for i in range(6)
    }
    alone = TableEngine(Setup(), TABLE)
    expected = {name: by_prompt_logprobs(alone.core, *each) for name, each in requests.items()}
    plenty = TableEngine(Setup(), TABLE)
    tight = TableEngine(
        Setup(max_num_seqs=8, num_global=17, num_sliding=17, max_num_batched_tokens=12, prefill_chunk_tokens=4), TABLE
    )
    uncached = TableEngine(Setup(enable_prefix_caching=False), TABLE)
    for engine in (plenty, tight, uncached, plenty):
        for i in range(2):
            engine.core.add_request(f"n{i}", shared, SamplingParams(max_tokens=40, ignore_eos=True))
        found = scored(engine.core, requests)
        assert {name: rounded(found[name]) for name in requests} == {name: rounded(expected[name]) for name in requests}
        assert engine.kv.usage == 0
    assert tight.core.scheduler.num_preemptions > 0


def test_a_prompt_and_what_continuations_share_is_computed_and_told_once() -> None:
    engine = TableEngine(Setup(block_size=4, max_num_seqs=8), TABLE)
    prompt = random_tokens(random.Random(1), 10)
    scored(engine.core, {"r": (prompt, [(1,), (1, 2), (1, 2, 3), (1, 4), (5,), (6, 7)])})
    # The prompt; then A of (A B C), A of (A D) lies before what the first told and has to be computed, not told: both
    # children of A are told by one row; and the one of (F G).
    assert engine.runner.num_rows_of_steps == [10, 3]


def test_one_token_each_costs_no_row_of_its_own() -> None:
    engine = TableEngine(Setup(), TABLE)
    prompt = random_tokens(random.Random(2), 7)
    scored(engine.core, {"r": (prompt, [(i,) for i in range(VOCAB_SIZE)])})
    assert engine.runner.num_rows_of_steps == [7]


def test_streams_beside_it_say_the_same() -> None:
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=12, ignore_eos=True)
    prompt = random_tokens(random.Random(3), 11)
    said = []
    for is_beside in (False, True):
        engine = TableEngine(Setup(), TABLE)
        engine.core.add_request("stream", prompt, params)
        if is_beside:
            engine.core.add_scoring_request("r", prompt, random_tree(random.Random(4), 20))
        outputs = [out for out in steps(engine.core) if out.request_id == "stream"]
        said.append([token for out in outputs for delta in out.deltas for token in delta.token_ids])
    assert said[0] == said[1]


@pytest.mark.parametrize("num_steps", range(6))
def test_an_abort_in_any_phase_leaves_nothing_behind(num_steps: int) -> None:
    engine = TableEngine(Setup(max_num_seqs=2, prefill_chunk_tokens=4, max_num_batched_tokens=8), TABLE)
    engine.core.add_scoring_request("r", random_tokens(random.Random(5), 10), random_tree(random.Random(6), 12))
    for _ in range(num_steps):
        engine.step()
    engine.core.abort_request("r")
    assert not engine.core.has_unfinished_requests
    assert engine.kv.usage == 0
    engine.core.scheduler.check_integrity()


def test_a_copy_that_fails_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TableEngine(Setup(max_num_seqs=16), TABLE)
    whole = engine.runner.copy_block

    def broken(copy: object) -> None:
        if copy.request_id == "bad":  # type: ignore[attr-defined]
            raise RuntimeError("no copy")
        whole(copy)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.runner, "copy_block", broken)
    requests = {
        name: (random_tokens(random.Random(i), 9), [(1, 2), (3, 4, 5)]) for i, name in enumerate(["good", "bad"])
    }
    for name, (prompt, continuations) in requests.items():
        engine.core.add_scoring_request(name, prompt, continuations)
    errors, scores = {}, {}
    while engine.core.has_unfinished_requests:
        result = engine.core.step()
        engine.core.scheduler.check_integrity()
        errors |= result.errors
        scores |= {output.request_id: output.scores for output in result.outputs if output.finished}
    assert errors.keys() == {"bad"}
    assert scores == {"good": by_prompt_logprobs(TableEngine(Setup(), TABLE).core, *requests["good"])}
    assert engine.kv.usage == 0


def test_what_is_not_a_number_is_no_score() -> None:
    scoring = Scoring(((1, 2), (3,)))
    first = scoring.first_sequence("r", [4], seq_id=0, caller=Caller())
    with pytest.raises(StepError, match="not finite"):
        scoring.take(first, [TokenLogprob(1, math.nan, ((1, math.nan), (3, math.nan)))])


@pytest.mark.parametrize(
    ("continuations", "message"),
    [
        ([], "0 of them; 1 to 1024"),
        ([(1,)] * (MAX_CONTINUATIONS + 1), "1025 of them"),
        ([(1,), ()], "one is empty"),
        ([(1, VOCAB_SIZE)], "ids from 0 to 28"),
        ([(-1,)], "ids from 0 to 28"),
        ([(1,) * 60], "60 tokens and the prompt 5; together at most 64"),
    ],
)
def test_continuations_that_cannot_be_scored_are_refused(continuations: list[tuple[int, ...]], message: str) -> None:
    engine = TableEngine(Setup(), TABLE)
    with pytest.raises(RequestError, match=message):
        engine.core.add_scoring_request("r", [1, 2, 3, 4, 5], continuations)
    assert not engine.core.has_unfinished_requests


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("scoring") / "model")


@pytest.mark.parametrize("options", [{"quantization": "int8", "dtype": "auto"}, {"quantization": "none"}])
def test_both_runners_score_as_they_tell_of_prompts(checkpoint: Path, options: dict[str, object]) -> None:
    engine = load(checkpoint, **options)
    rng = random.Random(7)
    for num_tokens in (15, 16, 21, 38):
        prompt = [2, *rng.choices(range(200), k=num_tokens - 1)]
        continuations = [tuple(rng.choices(range(200), k=rng.randint(1, 20))) for _ in range(6)]
        continuations.append((*continuations[0][:1], 9, 8))
        expected = by_prompt_logprobs(engine.core, prompt, continuations)
        found = scored(engine.core, {"r": (prompt, continuations)})["r"]
        close = [pytest.approx(each, abs=1e-4) for each in expected]
        assert list(found) == (list(expected) if options["quantization"] == "int8" else close)


class Served:
    """The engine behind an event loop, over a table."""

    def __init__(self, engine: LoadedEngine, **limits: int) -> None:
        self.engine = AsyncLLMEngine(lambda: engine, **limits)

    def run(self, work: abc.Callable[[AsyncLLMEngine], abc.Awaitable[object]]) -> object:
        async def main() -> object:
            await self.engine.start()
            try:
                return await work(self.engine)
            finally:
                await self.engine.shutdown()

        return asyncio.run(main())


def test_the_engine_behind_the_event_loop(checkpoint: Path) -> None:
    loaded = load(checkpoint, quantization="int8", dtype="auto")
    prompt, continuations = [2, *range(20, 40)], [(1, 2, 3), (4,), (5, 6)]
    expected = by_prompt_logprobs(loaded.core, prompt, continuations)

    async def work(engine: AsyncLLMEngine) -> object:
        scores = await engine.score("a", prompt, continuations)
        again = await engine.score("b", prompt, continuations)
        with pytest.raises(RequestError, match="no continuations"):
            await engine.score("c", prompt, [])
        with pytest.raises(EngineError, match="empty"):
            await engine.score("d", prompt, [()])
        cancelled = asyncio.ensure_future(engine.score("e", prompt * 10, [(1, 2)] * 3))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        async with asyncio.timeout(20):
            while engine.stats().num_running or engine.stats().num_waiting:
                await asyncio.sleep(0.01)
        return [scores, again]

    told = Served(loaded).run(work)
    assert told == [ContinuationScores(expected, 16), ContinuationScores(expected, 16)]
    assert SCORING.max_tokens == 0


def test_many_options_take_few_places_in_the_queue(checkpoint: Path) -> None:
    loaded = load(checkpoint, quantization="int8", dtype="auto")
    continuations = [(i, 7) for i in range(10, 87)]

    async def work(engine: AsyncLLMEngine) -> object:
        scoring = [engine.score(f"{i}", [2, 3, 4 + i], continuations) for i in range(16)]
        return [len(told.logprobs) for told in await asyncio.gather(*scoring)]

    assert Served(loaded, max_num_waiting=256).run(work) == [77] * 16
