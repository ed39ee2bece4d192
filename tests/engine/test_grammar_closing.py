"""Answers that end within their budget, whatever is chosen."""

import json
import random
from typing import Any

import jsonschema
import pytest

from engine.errors import GrammarError, StepError
from engine.grammar.compiler import GrammarCompiler
from engine.grammar.spec import GrammarKind, GrammarSpec
from tests.engine.grammars import END, TinyVocabulary, ids_of
from tests.engine.test_grammar_schemas import CASES, spec_of


@pytest.fixture(scope="module")
def vocabulary() -> TinyVocabulary:
    return TinyVocabulary()


@pytest.fixture(scope="module")
def compiler(vocabulary: TinyVocabulary) -> GrammarCompiler:
    return vocabulary.compiler()


def answer_within(spec: GrammarSpec, max_tokens: int, compiler: GrammarCompiler, rng: random.Random) -> list[int]:
    """As the engine goes: what is forced, then any token that is allowed."""
    state, taken = compiler.compile(spec).start(), []
    while not state.is_complete:
        forced = state.forced(max_tokens - len(taken))
        state.accept(forced)
        taken += forced
        if state.is_complete:
            break
        assert len(taken) < max_tokens
        taken += state.accept_within(rng.choice(ids_of(state.mask())), max_tokens - len(taken) - 1)
    return taken


@pytest.mark.parametrize("name", CASES)
def test_every_answer_is_complete_within_its_budget(
    name: str, compiler: GrammarCompiler, vocabulary: TinyVocabulary
) -> None:
    schema: Any = CASES[name][0]
    grammar, rng = compiler.compile(spec_of(schema)), random.Random(name)
    shortest = grammar.start().closing(200)
    assert shortest is not None
    for spare in (0, 1, 2, 5, 13, 40):
        max_tokens = len(shortest) + spare
        grammar.check_closes(max_tokens)
        taken = answer_within(spec_of(schema), max_tokens, compiler, rng)
        assert len(taken) <= max_tokens
        jsonschema.validate(json.loads(vocabulary.decode(taken).decode()), schema)


def test_a_budget_that_is_too_small_is_refused(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(spec_of({"const": "a long constant"}))
    num = len(grammar.start().closing(100) or [])
    grammar.check_closes(num)
    with pytest.raises(GrammarError, match=f"needs {num} tokens") as caught:
        grammar.check_closes(num - 1)
    assert caught.value.param == "max_tokens"
    assert grammar.start().closing(num - 1) is None


def test_a_text_without_a_known_way_is_refused(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(GrammarSpec(GrammarKind.REGEX, "(?s:.*)zq\u00e9\u4e2dqz"))
    with pytest.raises(GrammarError, match="no way was found") as caught:
        grammar.check_closes(5_000)
    assert caught.value.param == "x_close"
    state = grammar.start()
    with pytest.raises(StepError, match="no way"):
        state.accept_within(ids_of(state.mask())[-1], 50)


def test_a_way_may_need_the_end_token(compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    state = compiler.compile(GrammarSpec(GrammarKind.REGEX, "[0-9]+")).start()
    assert state.closing(2) == [*vocabulary.encode("0"), END]
    assert state.closing(1) is None


def test_within_a_text_the_way_is_not_searched_again(
    compiler: GrammarCompiler, vocabulary: TinyVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = compiler.compile(spec_of({"type": "array", "items": {"type": "string"}, "minItems": 1})).start()
    state.accept(vocabulary.encode('["'))
    state.accept_within(vocabulary.encode("x")[0], 9)
    monkeypatch.setattr("engine.grammar.state.shorter_way", None)
    for _ in range(4):
        assert state.accept_within(vocabulary.encode("k")[0], 9) == vocabulary.encode("k")
