"""Outputs that follow a grammar, in the whole engine: what is forced is said without being chosen."""

import random
import re
from dataclasses import replace
from typing import Any

import pytest

from engine.engine_core import EngineCore
from engine.errors import StepError
from engine.grammar.compiler import Grammar, GrammarCompiler
from engine.grammar.spec import GrammarKind, GrammarSpec
from engine.grammar.state import GrammarState
from engine.outputs import FinishReason, RequestOutput
from engine.prefill_pace import PrefillPace
from engine.sampling_params import SamplingParams
from tests.engine.fakes import Setup
from tests.engine.table_engine import EOS, VOCAB_SIZE, TableEngine, random_table, token_to_bytes, told
from tests.engine.test_speculation import letters, random_setup

REGEXES = ["(abc|abd)[e-h]{2,5}xyz(k|l)?", "[a-d]{1,9}", "abcdefghijklmnopqrstuvwxyz[ab]", "q", "(ab|abab|ababab)z"]
ROOMY = Setup(max_num_seqs=8, max_num_batched_tokens=96, max_model_len=256, prefill_chunk_tokens=32, max_draft_rows=48)


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(
        token_to_bytes=token_to_bytes,
        encode=lambda text: letters("".join(letter for letter in text if "a" <= letter <= "z")),
        special_ids=[EOS],
        end_token_ids=[EOS],
        vocab_size=VOCAB_SIZE,
    )


@pytest.fixture(scope="module")
def grammars(compiler: GrammarCompiler) -> dict[str, Grammar]:
    return {regex: compiler.compile(GrammarSpec(GrammarKind.REGEX, regex)) for regex in REGEXES}


def random_requests(rng: random.Random, grammars: dict[str, Grammar], shared: list[int]) -> dict[str, dict[str, Any]]:
    requests = {}
    for i in range(rng.randint(3, 8)):
        own = [rng.randrange(1, VOCAB_SIZE) for _ in range(rng.randint(1, 20))]
        regex = rng.choice([*REGEXES, None])
        params = SamplingParams(
            temperature=rng.choice((0.0, 1.0, 2.0)),
            seed=rng.randrange(1_000),
            n=rng.choice((1, 1, 3)),
            max_tokens=rng.choice((1, 3, 7, 60)),
            min_tokens=rng.choice((0, 0, 1)),
            ignore_eos=rng.random() < 0.5,
            stop=rng.choice(((), (), ("fg",), ("de", "yz"))),
            logprobs=rng.choice((None, 0, 2)),
            repetition_penalty=rng.choice((1.0, 1.2)),
            grammar=None if regex is None else grammars[regex],
        )
        requests[f"r{i}"] = {
            "prompt_token_ids": rng.choice((own, shared + own)),
            "params": params,
        }
    return requests


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 200), marks=pytest.mark.slow)], ids=str)
def test_however_it_is_computed_the_same_is_said(seeds: range, grammars: dict[str, Grammar]) -> None:
    """Alone with all memory, in whole chunks; and together, in little memory, with prefix hits and drafts."""
    num_preemptions = num_accepted = 0
    for seed in seeds:
        rng = random.Random(seed)
        setup, logits = random_setup(rng), random_table(seed, scale=rng.choice((1.0, 6.0)))
        requests = random_requests(rng, grammars, [rng.randrange(1, VOCAB_SIZE) for _ in range(40)])
        expected = {name: answer_alone(logits, request) for name, request in requests.items()}
        together = TableEngine(setup, logits)
        for name, request in requests.items():
            together.core.add_request(name, prediction_token_ids=expected[name][0][1], **request)
        outputs = together.run()
        num_preemptions += together.core.scheduler.num_preemptions
        num_accepted += together.core.scheduler.num_accepted_draft_tokens
        for name, request in requests.items():
            assert told(outputs[name], request["params"].n) == expected[name], f"workload {seed}, {name}"
            check_grammar(request["params"], expected[name])
    assert num_preemptions > 0, "the workloads are too tame"
    assert num_accepted > 0, "the workloads are too tame"


def answer_alone(logits: Any, request: dict[str, Any]) -> list[tuple[Any, ...]]:
    setup = replace(ROOMY, max_model_len=120, enable_prefix_caching=False, max_draft_rows=0)
    engine = TableEngine(setup, logits)
    engine.core.add_request("alone", **request)
    return told(engine.run()["alone"], request["params"].n)


def check_grammar(params: SamplingParams, answers: list[tuple[Any, ...]]) -> None:
    if params.grammar is None:
        return
    for text, _, _, reasons, stops, _ in answers:
        is_whole = reasons == [FinishReason.STOP] and not stops
        assert not is_whole or re.fullmatch(params.grammar.spec.text, text), (params.grammar.spec, text)


def run(params: SamplingParams, *, prompt: list[int] | None = None, seed: int = 0) -> tuple[TableEngine, Any]:
    engine = TableEngine(ROOMY, random_table(seed, scale=1.0))
    engine.core.add_request("r", prompt or [3, 4, 5], params)
    return engine, told(engine.run()["r"], params.n)[0]


def test_what_is_forced_takes_no_step(grammars: dict[str, Grammar]) -> None:
    engine, (text, token_ids, *_) = run(SamplingParams(grammar=grammars[REGEXES[2]], max_tokens=60))
    assert text[:-1] == "abcdefghijklmnopqrstuvwxyz"
    assert len(token_ids) == 27
    assert engine.runner.num_rows_of_steps == [3 + 26], "the prompt and what is forced, whose row chooses the last"


def test_the_log_probabilities_of_what_is_forced_are_the_models(grammars: dict[str, Grammar]) -> None:
    params = SamplingParams(grammar=grammars[REGEXES[0]], max_tokens=60, logprobs=2, seed=1)
    _, (_, token_ids, entries, *_) = run(params)
    _, (*_, prompt_logprobs) = run(SamplingParams(prompt_logprobs=2, max_tokens=1), prompt=[3, 4, 5, *token_ids])
    assert entries == list(prompt_logprobs[0][3:])


@pytest.mark.parametrize("logprobs", [None, 0])
def test_max_tokens_ends_it_anywhere(grammars: dict[str, Grammar], logprobs: int | None) -> None:
    params = SamplingParams(grammar=grammars[REGEXES[2]], max_tokens=60, logprobs=logprobs, temperature=0.0)
    _, (whole, *_) = run(params)
    for max_tokens in range(1, 27):
        _, (text, token_ids, entries, reasons, *_) = run(replace(params, max_tokens=max_tokens))
        assert (text, reasons) == (whole[:max_tokens], [FinishReason.LENGTH])
        assert len(token_ids) == max_tokens
        assert len(entries) == (0 if logprobs is None else max_tokens)


def test_a_lead_is_said_and_not_shown(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(GrammarSpec(GrammarKind.REGEX, "[xy]z", lead="ab"))
    _, (text, token_ids, *_) = run(SamplingParams(grammar=grammar, max_tokens=60))
    assert re.fullmatch("[xy]z", text)
    assert token_to_text(token_ids) == "ab" + text


def token_to_text(token_ids: list[int]) -> str:
    return b"".join(map(token_to_bytes, token_ids)).decode()


def test_prompts_are_computed_beside_what_is_constrained(compiler: GrammarCompiler) -> None:
    """Every step of such a sequence may bring forced tokens; it decodes all the same."""
    grammar = compiler.compile(GrammarSpec(GrammarKind.REGEX, "((x|y)abc){60}"))
    engine = TableEngine(replace(ROOMY, pace=PrefillPace(), max_draft_rows=0), random_table(0, scale=1.0))
    for i in range(4):
        engine.core.add_request(f"stream {i}", [3 + i, 4, 5], SamplingParams(grammar=grammar, max_tokens=240))
    for _ in range(3):
        engine.step()
    engine.core.add_request("prompt", [1 + i % 20 for i in range(100)], SamplingParams(max_tokens=1))
    outputs: list[RequestOutput] = []
    while not any(output.request_id == "prompt" and output.finished for output in outputs):
        assert engine.core.scheduler.num_running == 5 or not outputs
        outputs += engine.step()


FAULTS = ["accept", "forced", "masks"]


@pytest.mark.parametrize("method", FAULTS)
@pytest.mark.parametrize("call", [1, 4])
def test_a_grammar_that_fails_ends_its_request_alone(
    grammars: dict[str, Grammar], monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    requests = {f"r{i}": SamplingParams(grammar=grammars[REGEXES[i % 2]], max_tokens=60, seed=i) for i in range(8)}
    expected = run_all(requests)
    culprit = grammars[REGEXES[1]].start()
    whole, num_calls = getattr(GrammarState, method), 0

    def broken(self: GrammarState, *arguments: Any) -> Any:
        nonlocal num_calls
        num_calls += self is culprit
        if self is culprit and num_calls >= call:
            raise StepError("broken on purpose")
        return whole(self, *arguments)

    monkeypatch.setattr(GrammarState, method, broken)
    requests["r3"] = replace(requests["r3"], grammar=Started(grammars[REGEXES[1]], culprit), max_tokens=9)
    answers = run_all(requests)
    assert str(answers.pop("r3")) == "broken on purpose"
    assert answers == {name: answer for name, answer in expected.items() if name != "r3"}


class Started(Grammar):
    """A grammar whose only sequence has this state."""

    def __init__(self, grammar: Grammar, state: GrammarState) -> None:
        super().__init__(grammar.spec, grammar._matcher, grammar._rules)
        self._state = state

    def start(self) -> GrammarState:
        return self._state


def run_all(requests: dict[str, SamplingParams]) -> dict[str, Any]:
    engine = TableEngine(ROOMY, random_table(3, scale=1.0))
    core: EngineCore = engine.core
    for name, params in requests.items():
        core.add_request(name, [4, 5, 6], params)
    outputs: dict[str, list[RequestOutput]] = {name: [] for name in requests}
    errors: dict[str, Any] = {}
    while core.has_unfinished_requests:
        result = core.step()
        core.scheduler.check_integrity()
        errors |= result.errors
        for output in result.outputs:
            outputs[output.request_id].append(output)
    return {name: errors.get(name) or told(outputs[name], 1) for name in requests}


@pytest.mark.parametrize("regex", ["a(bc|d){1,30}e", "(ab|cb){2,60}d?"])
def test_what_closes_is_complete_within_its_tokens(compiler: GrammarCompiler, regex: str) -> None:
    grammar = compiler.compile(GrammarSpec(GrammarKind.REGEX, regex))
    for max_tokens in (5, 6, 9, 30):
        grammar.check_closes(max_tokens)
        for seed in range(20):
            params = SamplingParams(grammar=grammar, closes=True, max_tokens=max_tokens, seed=seed, temperature=2.0)
            _, (text, token_ids, _, reasons, *_) = run(params, seed=seed % 5)
            assert reasons == [FinishReason.STOP], (max_tokens, text)
            assert re.fullmatch(regex, text)
            assert len(token_ids) <= max_tokens
