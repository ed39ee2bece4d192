"""Whatever is raised for one sequence in a step ends its request alone, in whichever part of the step it is raised."""

from collections import abc
from pathlib import Path
from typing import Any

import pytest

from engine.batch import ScheduledSequence
from engine.engine_core import EngineCore
from engine.errors import StepError
from engine.loading import LoadedEngine
from engine.outputs import RequestOutput
from engine.prompt_lookup import PromptLookup
from engine.runners import cpu_runner, torch_sampler
from engine.sampling_params import SamplingParams
from engine.step_failures import StepFailures
from gemma3.text.detokenizer import Detokenizer
from tests.engine.engines import load, tiny_checkpoint
from tests.engine.table_engine import told

CULPRIT = "r3"
PHRASE = [150, 151, 152, 153, 154, 155]
PROMPTS = {f"r{i}": [2, *PHRASE[: i % 5 + 2], *PHRASE, *PHRASE] for i in range(8)}
PARAMS = SamplingParams(
    temperature=0.7, seed=4, max_tokens=8, ignore_eos=True, logprobs=1, frequency_penalty=0.1, stop=("~~",)
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("failures") / "model")


def run(core: EngineCore) -> dict[str, list[Any]]:
    """What each request is told, or the error that ended it. Every invariant is checked after each step."""
    news: dict[str, list[RequestOutput]] = {name: [] for name in PROMPTS}
    ends: dict[str, list[Any]] = {}
    for name, prompt in PROMPTS.items():
        core.add_request(name, prompt, PARAMS)
    while core.has_unfinished_requests:
        result = core.step()
        core.scheduler.check_integrity()
        for output in result.outputs:
            assert output.request_id not in ends, "news after the end"
            news[output.request_id].append(output)
        ends |= {name: [error] for name, error in result.errors.items()}
    return {name: ends.get(name) or told(outputs, PARAMS.n) for name, outputs in news.items()}


class Saboteur:
    """Lets a function raise, from the third of its calls that concern the culprit on."""

    def __init__(self, core: EngineCore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.core, self.monkeypatch, self.num_calls = core, monkeypatch, 0

    def break_(self, owner: object, name: str, request_of: abc.Callable[..., str | None]) -> None:
        whole = getattr(owner, name)

        def broken(*args: Any, **kwargs: Any) -> Any:
            if request_of(*args, **kwargs) == CULPRIT:
                self.num_calls += 1
                if self.num_calls > 2:
                    raise RuntimeError("broken on purpose")
            return whole(*args, **kwargs)

        self.monkeypatch.setattr(owner, name, broken)

    def owner_of(self, part: object) -> str | None:
        """The request that a sequence's lookup or a detokenizer belongs to."""
        for name, request in self.core.requests.items():
            if part in [*request.detokenizers, *(seq.lookup for seq in request.sequences)]:
                return name
        return None


# (where the fault lies, the object that has the function, its name, the request that a call concerns)
def lookup(saboteur: Saboteur) -> None:
    saboteur.break_(PromptLookup, "propose", lambda self, _: saboteur.owner_of(self))


def settling(saboteur: Saboteur) -> None:
    saboteur.break_(PromptLookup, "settle", lambda self, **_: saboteur.owner_of(self))


def tokens_of_a_row(saboteur: Saboteur) -> None:
    whole = ScheduledSequence.row_token_ids.fget
    holder = type("Holder", (), {"get": staticmethod(whole)})
    saboteur.break_(holder, "get", lambda item: item.seq.request_id)
    saboteur.monkeypatch.setattr(ScheduledSequence, "row_token_ids", property(lambda item: holder.get(item)))


def building_a_row(saboteur: Saboteur) -> None:
    saboteur.break_(cpu_runner, "_sampling_row", lambda wanted, _: wanted.seq.request_id)
    saboteur.break_(torch_sampler, "_adjust_row", lambda _, row: row.seq.request_id)


def detokenizing(saboteur: Saboteur) -> None:
    saboteur.break_(Detokenizer, "push", lambda self, _: saboteur.owner_of(self))


def ending(saboteur: Saboteur) -> None:
    saboteur.num_calls = 2
    saboteur.break_(Detokenizer, "finish", lambda self: saboteur.owner_of(self))


def result(saboteur: Saboteur) -> None:
    from engine.runners import cpu_runner, torch_runner

    for module in (cpu_runner, torch_runner):
        saboteur.break_(module, "result_of", lambda item, _: item.seq.request_id)


def admitting(saboteur: Saboteur) -> None:
    saboteur.num_calls = 2
    saboteur.break_(saboteur.core.scheduler._kv, "find_prefix", lambda seq: seq.request_id)


def taking_in(saboteur: Saboteur) -> None:
    scheduler = saboteur.core.scheduler
    saboteur.break_(scheduler, "update", lambda item, _: item.seq.request_id)


def blocks(saboteur: Saboteur) -> None:
    saboteur.break_(saboteur.core.scheduler._kv, "mark_computed", lambda seq, _: seq.request_id)


def reporting(saboteur: Saboteur) -> None:
    from engine import engine_core

    saboteur.break_(engine_core, "report", lambda request: request.request_id)


STAGES = [
    admitting, lookup, settling, tokens_of_a_row, building_a_row, detokenizing, ending, result, taking_in, blocks, reporting,
]  # fmt: skip


@pytest.fixture(scope="module", params=["int8", "none"])
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> LoadedEngine:
    if request.param == "int8":
        pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")
        return load(checkpoint, dtype="auto", quantization="int8", threads=1, prefix_caching=False)
    return load(checkpoint, prefix_caching=False)


@pytest.fixture(scope="module")
def expected(engine: LoadedEngine) -> dict[str, list[Any]]:
    return run(engine.core)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_fault_ends_its_request_alone(
    engine: LoadedEngine, expected: dict[str, list[Any]], stage: abc.Callable[[Saboteur], None]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        stage(Saboteur(engine.core, monkeypatch))
        answers = run(engine.core)
    (error,) = answers.pop(CULPRIT)
    assert isinstance(error, StepError)
    assert str(error.__cause__) == "broken on purpose"
    assert is_same(answers, {name: answer for name, answer in expected.items() if name != CULPRIT}, engine)
    assert engine.core.scheduler.kv_cache_usage == 0


def is_same(answers: dict[str, list[Any]], expected: dict[str, list[Any]], engine: LoadedEngine) -> bool:
    """Byte for byte; but torch's sums depend on the rows of a step in their last bits, and so do log probabilities."""
    if engine.info.quantization == "int8":
        return answers == expected
    return {name: [part[:2] for part in answer] for name, answer in answers.items()} == {
        name: [part[:2] for part in answer] for name, answer in expected.items()
    }


def test_after_all_that_the_engine_answers_as_before(engine: LoadedEngine, expected: dict[str, list[Any]]) -> None:
    assert is_same(run(engine.core), expected, engine)


def test_the_first_error_of_a_request_is_told() -> None:
    failures = StepFailures()
    for text in ("one", "two"):
        with failures.of("a"):
            raise StepError(text)
    with failures.of("b"):
        pass
    assert {name: str(error) for name, error in failures.errors.items()} == {"a": "one"}
    assert "a" in failures
    assert "b" not in failures


def test_what_ends_the_process_is_not_caught() -> None:
    with pytest.raises(KeyboardInterrupt), StepFailures().of("a"):
        raise KeyboardInterrupt
