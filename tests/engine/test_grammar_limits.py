"""Grammars made to explode, matchers that fail, and what is kept."""

import json
import threading
from itertools import pairwise
from typing import Any

import pytest

from engine.errors import GrammarError, StepError
from engine.grammar.compiler import MAX_CACHED_GRAMMARS, GrammarCompiler
from engine.grammar.spec import GrammarKind, GrammarSpec
from engine.grammar.state import GrammarState, TokenRules
from engine.token_mask import mask_of
from tests.engine.grammars import END, TinyVocabulary, fits, ids_of

LONG = 60_000


@pytest.fixture(scope="module")
def vocabulary() -> TinyVocabulary:
    return TinyVocabulary()


@pytest.fixture(scope="module")
def compiler(vocabulary: TinyVocabulary) -> GrammarCompiler:
    return vocabulary.compiler()


def chain(rule: str, *, length: int, last: str = '"x"') -> str:
    names = [f"{rule}{i}" for i in range(length)]
    return "\n".join([f"start: {rule}0", *(f"{a}: {b}" for a, b in pairwise(names)), f"{names[-1]}: {last}"])


def reference_chain(length: int, *, nested: int = 1) -> str:
    def nest(at: int) -> Any:
        schema: Any = {"$ref": f"#/$defs/{at}"}
        for _ in range(nested):
            schema = {"items": schema}
        return schema

    definitions = {str(at): nest(at + 1) for at in range(length)} | {str(length): {"type": "string"}}
    return json.dumps({"$ref": "#/$defs/0", "$defs": definitions}, separators=(",", ":"))


HOSTILE = {
    "parentheses": (GrammarKind.REGEX, "(" * 30_000 + "a" + ")" * 30_000),
    "repetition": (GrammarKind.REGEX, "((a{0,1000}){0,1000}){0,1000}"),
    "long repetition": (GrammarKind.REGEX, "a{1000000000}"),
    "alternatives": (GrammarKind.REGEX, "|".join(f"w{i}" for i in range(9000))),
    "nested quantifiers": (GrammarKind.REGEX, "(((a*)*)*b?)*"),
    "unicode classes": (GrammarKind.REGEX, r"(\p{L}\p{N}?){100,2000}"),
    "exponential states": (GrammarKind.REGEX, "(a|b)*a(a|b){200}"),
    "no text": (GrammarKind.REGEX, ""),
    "a surrogate": (GrammarKind.REGEX, "\ud800"),
    "lark parentheses": (GrammarKind.LARK, "start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    "lark brackets": (GrammarKind.LARK, "start: " + "[" * LONG),
    "rules in a row": (GrammarKind.LARK, chain("r", length=4000)),
    "terminals in a row": (GrammarKind.LARK, chain("R", length=4000)),
    "left recursion": (GrammarKind.LARK, 'start: start "a" | "a"'),
    "only itself": (GrammarKind.LARK, "start: start"),
    "ambiguous": (GrammarKind.LARK, 'start: s s s s s s\ns: s s | "a" | "" | s s s'),
    "doubling": (GrammarKind.LARK, "\n".join(["start: r0", *(f"r{i}: r{i + 1} r{i + 1}" for i in range(40)), 'r40: "x"'])),
    "unknown grammar": (GrammarKind.LARK, "start: @answer"),
    "references in a row": (GrammarKind.JSON_SCHEMA, reference_chain(1500)),
    "references in depth": (GrammarKind.JSON_SCHEMA, reference_chain(300, nested=12)),
    "a cycle": (GrammarKind.JSON_SCHEMA, json.dumps({"$ref": "#/$defs/a", "$defs": {
        "a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})),
    "brackets": (GrammarKind.JSON_SCHEMA, "[" * LONG),
    "objects": (GrammarKind.JSON_SCHEMA, '{"items":' * 6000 + "1" + "}" * 6000),
    "a product": (GrammarKind.JSON_SCHEMA, json.dumps({"allOf": [
        {"anyOf": [{"properties": {f"k{i}{q}": {"const": 1}}, "required": [f"k{i}{q}"]} for q in range(4)]} for i in range(12)]})),
    "options like themselves": (GrammarKind.JSON_SCHEMA, json.dumps({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * 50}},
        "oneOf": [{"$ref": "#/$defs/a"}] * 3})),
    "an enum": (GrammarKind.JSON_SCHEMA, json.dumps({"enum": [f"v{i:05}" for i in range(6000)]})),
    "long strings": (GrammarKind.JSON_SCHEMA, '{"type": "string", "minLength": 1000000000}'),
    "many items": (GrammarKind.JSON_SCHEMA, '{"type": "array", "minItems": 100000, "items": {"type": "integer"}}'),
    "large numbers": (GrammarKind.JSON_SCHEMA, f'{{"type": "integer", "minimum": -1{"0" * 400}}}'),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_is_refused_or_works(name: str, compiler: GrammarCompiler) -> None:
    kind, text = HOSTILE[name]
    error = None
    try:
        state = compiler.compile(GrammarSpec(kind, text)).start()
    except GrammarError as caught:
        error = caught
    if error is not None:
        assert len(str(error)) < 400
        assert error.code == kind.error_code
        return
    for _ in range(5):
        state.accept(state.forced(16))
        if state.is_complete:
            break
        allowed = ids_of(state.mask())
        state.accept([allowed[-1]])


def test_other_threads_get_their_usual_stack(compiler: GrammarCompiler) -> None:
    compiler.compile(GrammarSpec(GrammarKind.REGEX, "stack"))
    assert threading.stack_size() == 0  # Python's own choice


def test_few_grammars_are_kept(vocabulary: TinyVocabulary) -> None:
    compiler = vocabulary.compiler()
    first = compiler.compile(GrammarSpec(GrammarKind.REGEX, "x0"))
    for at in range(1, MAX_CACHED_GRAMMARS + 1):
        compiler.compile(GrammarSpec(GrammarKind.REGEX, f"x{at}"))
    assert compiler.compile(GrammarSpec(GrammarKind.REGEX, "x0")) is not first


def test_several_threads_compile_and_start(compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for at in range(12):
                grammar = compiler.compile(GrammarSpec(GrammarKind.REGEX, f"(ab){{{at % 5 + 1}}}{number % 2}"))
                assert fits(grammar, "ab" * (at % 5 + 1) + str(number % 2), vocabulary)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_grammar_that_broke_is_compiled_afresh(vocabulary: TinyVocabulary) -> None:
    compiler, spec = vocabulary.compiler(), GrammarSpec(GrammarKind.REGEX, "b?a{100000}")
    broken = compiler.compile(spec)
    state = broken.start()
    state.accept(vocabulary.encode("b"))
    forced = state.forced(100_000)
    with pytest.raises(StepError, match="too complex"):
        state.accept([*forced, *forced])
    fresh = compiler.compile(spec)
    assert fresh is not broken
    assert len(ids_of(fresh.start().mask())) > 1


class Panic(BaseException):
    """As the library's, which is no ``Exception``."""


@pytest.mark.parametrize(
    "call", ["consume_tokens", "compute_bitmask", "compute_ff_tokens", "validate_tokens", "is_stopped"]
)
def test_a_panic_ends_that_sequence_alone(
    call: str, compiler: GrammarCompiler, vocabulary: TinyVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammar = compiler.compile(GrammarSpec(GrammarKind.REGEX, "[ab]+"))
    struck, neighbour = grammar.start(), grammar.start()
    library_matcher = struck._matcher
    monkeypatch.setattr(library_matcher, "_matcher", PanickingMatcher(library_matcher._matcher, call))
    with pytest.raises(StepError, match="library failed"):
        use(struck, vocabulary)
    neighbour.accept(vocabulary.encode("ab"))
    assert END in ids_of(neighbour.mask())


def use(state: GrammarState, vocabulary: TinyVocabulary) -> bool:
    state.accept(vocabulary.encode("a"))
    state.masks(vocabulary.encode("b"))
    state.forced(3)
    return state.is_complete


class PanickingMatcher:
    def __init__(self, matcher: Any, call: str) -> None:
        self._matcher = matcher
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return self._panic if name == self._call else getattr(self._matcher, name)

    def _panic(self, *_arguments: object) -> None:
        raise Panic("thread panicked")


class SilentMatcher(PanickingMatcher):
    """In an error state it still answers, as the library's does."""

    def __getattr__(self, name: str) -> Any:
        answers = {"is_error": lambda: True, "get_error": lambda: "Too many items"}
        return answers.get(name, getattr(self._matcher, name))


def test_a_matcher_in_an_error_state_gives_no_mask(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(GrammarSpec(GrammarKind.REGEX, "[ab]+")).start()._matcher
    state = GrammarState(SilentMatcher(matcher, ""), TokenRules(44, frozenset([END])))
    for ask in (state.mask, lambda: state.forced(1), lambda: state.masks([])):
        with pytest.raises(StepError, match="too complex for one step"):
            ask()


def test_a_mask_without_an_id_is_an_error(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(GrammarSpec(GrammarKind.REGEX, "[ab]+")).start()._matcher
    num_bytes = len(compiler.compile(GrammarSpec(GrammarKind.REGEX, "x")).start().mask())
    every = frozenset(range(num_bytes * 8))
    state = GrammarState(
        matcher, TokenRules(num_bytes, frozenset([END]), every, mask_of(every).ljust(num_bytes, b"\0"))
    )
    with pytest.raises(StepError, match="allows no token"):
        state.mask()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (GrammarKind.REGEX, "a{1000000}"),
        (GrammarKind.REGEX, "a{3,100001}"),
        (GrammarKind.REGEX, "a{" + "9" * 5000 + ",}"),
        (GrammarKind.LARK, 'start: "a"{1000000}'),
        (GrammarKind.JSON_SCHEMA, '{"type": "string", "pattern": "^a{2,1000000}$"}'),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_would_be_counted_out_is_refused_first(compiler: GrammarCompiler, kind: GrammarKind, text: str) -> None:
    with pytest.raises(GrammarError, match="more than 100000 times") as refused:
        compiler.compile(GrammarSpec(kind, text))
    assert refused.value.code == kind.error_code


def test_a_brace_that_is_a_text_repeats_nothing(compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    assert fits(compiler.compile(GrammarSpec(GrammarKind.REGEX, r"\{1000000\}")), "{1000000}", vocabulary)
