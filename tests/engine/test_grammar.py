"""The seam of grammars over a tiny vocabulary: masks, forced tokens, drafts, ends."""

import json

import pytest

from engine.errors import GrammarError, StepError
from engine.grammar.compiler import Grammar, GrammarCompiler
from engine.grammar.spec import GrammarKind, GrammarSpec
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.engine.grammars import TinyVocabulary

END = 1


@pytest.fixture(scope="module")
def tokenizer() -> Gemma3Tokenizer:
    return Gemma3Tokenizer()


@pytest.fixture(scope="module")
def compiler(tokenizer: Gemma3Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(
        token_to_bytes=tokenizer.token_to_bytes,
        encode=tokenizer.encode,
        special_ids=tokenizer.special_ids,
        end_token_ids=[END, tokenizer.end_of_turn_id],
        vocab_size=tokenizer.vocab_size + 3,
    )


def json_grammar(compiler: GrammarCompiler, schema: object, **fields: str) -> Grammar:
    return compiler.compile(GrammarSpec(GrammarKind.JSON_SCHEMA, json.dumps(schema), **fields))


def ids_of(mask: bytes) -> set[int]:
    bits = int.from_bytes(mask, "little")
    return {i for i in range(len(mask) * 8) if bits >> i & 1}


def test_what_must_follow_is_forced_and_the_rest_is_masked(
    compiler: GrammarCompiler, tokenizer: Gemma3Tokenizer
) -> None:
    state = json_grammar(
        compiler,
        {"type": "object", "properties": {"k": {"enum": ["a", "b"]}}, "required": ["k"], "additionalProperties": False},
    ).start()
    forced = state.forced(100)
    assert tokenizer.decode(forced) == '{"k": "'
    assert state.forced(3) == forced[:3]
    state.accept(forced)
    assert ids_of(state.mask()) == set(tokenizer.encode("ab"))
    state.accept(tokenizer.encode("b"))
    assert tokenizer.decode(state.forced(100)) == '"}'
    assert not state.is_complete
    state.accept(state.forced(100))
    assert state.is_complete
    assert state.forced(100) == []
    assert ids_of(state.mask()) == {END, tokenizer.end_of_turn_id}


def test_a_mask_has_a_bit_for_each_id(compiler: GrammarCompiler, tokenizer: Gemma3Tokenizer) -> None:
    mask = compiler.compile(GrammarSpec(GrammarKind.REGEX, "(?s:.*)")).start().mask()
    assert len(mask) == (tokenizer.vocab_size + 3 + 31) // 32 * 4
    assert not ids_of(mask) & (tokenizer.special_ids - {END, tokenizer.end_of_turn_id})
    assert max(ids_of(mask)) < tokenizer.vocab_size


def test_drafts_are_admitted_as_far_as_the_grammar_goes(compiler: GrammarCompiler, tokenizer: Gemma3Tokenizer) -> None:
    state = compiler.compile(GrammarSpec(GrammarKind.REGEX, "ab(c|d)e")).start()
    found = state.masks(tokenizer.encode("abxe"))
    assert [ids_of(mask) for mask in found] == [set(tokenizer.encode(text)) for text in ("a", "b", "cd")]
    assert state.masks([END]) == found[:1]
    assert state.mask() == found[0]


def test_a_draft_that_completes_the_text_is_left_to_its_row(
    compiler: GrammarCompiler, tokenizer: Gemma3Tokenizer
) -> None:
    """The row behind it would choose an end token, which the answer without drafts does not have."""
    state = compiler.compile(GrammarSpec(GrammarKind.REGEX, "ab?")).start()
    found = state.masks(tokenizer.encode("ab"))
    assert len(found) == 2
    assert ids_of(found[1]) >= {*tokenizer.encode("b"), END}
    assert state.mask() == found[0]


def test_the_end_is_allowed_where_the_text_may_end(compiler: GrammarCompiler, tokenizer: Gemma3Tokenizer) -> None:
    state = compiler.compile(GrammarSpec(GrammarKind.REGEX, "(ab)+")).start()
    state.accept(tokenizer.encode("a"))
    assert END not in ids_of(state.mask())
    state.accept(tokenizer.encode("b"))
    assert END in ids_of(state.mask())
    assert not state.is_complete
    state.accept([END])
    assert state.is_complete
    with pytest.raises(StepError):
        state.accept(tokenizer.encode("a"))


def test_a_lead_is_forced_first(compiler: GrammarCompiler, tokenizer: Gemma3Tokenizer) -> None:
    for kind, text in (
        (GrammarKind.JSON_SCHEMA, '{"const": 7}'),
        (GrammarKind.REGEX, "7"),
        (GrammarKind.LARK, 'start: "7"'),
    ):
        state = compiler.compile(GrammarSpec(kind, text, lead=" ")).start()
        assert tokenizer.decode(state.forced(9)) == " 7"


def test_a_token_that_is_not_allowed_ends_the_sequence(compiler: GrammarCompiler, tokenizer: Gemma3Tokenizer) -> None:
    state = compiler.compile(GrammarSpec(GrammarKind.REGEX, "ab")).start()
    with pytest.raises(StepError):
        state.accept(tokenizer.encode("b"))
    with pytest.raises(StepError):
        state.mask()


@pytest.mark.parametrize("named", ["<bos>", "<[0]>", "<[*]>", "<end_of_turn>"])
def test_a_grammar_cannot_name_a_token(compiler: GrammarCompiler, named: str) -> None:
    with pytest.raises(GrammarError, match="line 2 names a token"):
        compiler.compile(GrammarSpec(GrammarKind.LARK, f'start: "<x>" | /<y>/ | b // <z>\nb: {named}'))
    compiler.compile(GrammarSpec(GrammarKind.LARK, f'start: "{named}"')).start().mask()
    with pytest.raises(GrammarError, match="names a token"):
        compiler.compile(GrammarSpec(GrammarKind.LARK, f'start: /a"\n/ {named} /b"/'))


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        (GrammarKind.REGEX, "(", "invalid_grammar"),
        (GrammarKind.LARK, "start: missing", "invalid_grammar"),
        (GrammarKind.JSON_SCHEMA, '{"type": "strin"}', "invalid_json_schema"),
        (GrammarKind.JSON_SCHEMA, "{", "invalid_json_schema"),
        (GrammarKind.JSON_SCHEMA, '"' + "x" * 70_000 + '"', "invalid_json_schema"),
    ],
)
def test_what_cannot_be_promised_is_refused(compiler: GrammarCompiler, kind: GrammarKind, text: str, code: str) -> None:
    with pytest.raises(GrammarError) as caught:
        compiler.compile(GrammarSpec(kind, text))
    assert caught.value.code == code
    assert len(str(caught.value)) <= 400


def test_equal_specs_are_compiled_once(compiler: GrammarCompiler) -> None:
    spec = GrammarSpec(GrammarKind.REGEX, "once")
    assert compiler.compile(spec) is compiler.compile(GrammarSpec(GrammarKind.REGEX, "once"))


def test_of_two_ids_with_one_text_the_canonical_one_is_allowed() -> None:
    vocabulary = TinyVocabulary()
    double = [i for i, piece in enumerate(vocabulary.pieces) if piece == b"a"]
    assert len(double) == 2
    state = vocabulary.compiler().compile(GrammarSpec(GrammarKind.REGEX, "a|bc")).start()
    assert set(ids_of(state.mask())) & set(double) == set(vocabulary.encode("a"))
