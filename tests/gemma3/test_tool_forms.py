"""Forms of calls: what their grammars admit, and how their answers are read, however they fall into pieces."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from engine.grammar.compiler import GrammarCompiler
from engine.grammar.spec import GrammarKind, GrammarSpec
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.tool_form import CallRules, ToolForm, ToolParseError
from gemma3.text.tool_functiongemma import FUNCTIONGEMMA, EscapedArguments
from gemma3.text.tool_grammar import CallableTool, tool_grammar
from gemma3.text.tool_json import GOOGLES_JSON
from gemma3.text.tool_parser import CallDelta, TextDelta, ToolParser

HERMES = replace(
    GOOGLES_JSON,
    name="template",
    opening=("<tool_call>",),
    before_name='\n{"name": "',
    before_arguments='", "arguments": ',
    after_arguments="}\n</tool_call>",
    ends=(),
)
FORMS = (GOOGLES_JSON, HERMES, FUNCTIONGEMMA)
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["c", "f"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
    "required": ["city"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = (CallableTool("weather", WEATHER), CallableTool("now", NOTHING), CallableTool("now2", NOTHING))
NAMES = tuple(tool.name for tool in TOOLS)
ARGUMENTS = {"city": 'Z\u00fcrich {"a"}', "days": 3, "unit": "f", "tags": ["x", "y,}"]}
ESCAPED = '{city:<escape>Z\u00fcrich {"a"}<escape>,days:3,unit:<escape>f<escape>,tags:[<escape>x<escape>,<escape>y,}<escape>]}'
FREE = CallRules()
ANSWER = (
    '%json {"type":"object","properties":{"name":{"type":"string"}},"required":["name"],"additionalProperties":false}'
)


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    tokenizer = Gemma3Tokenizer()
    return GrammarCompiler(
        token_to_bytes=tokenizer.token_to_bytes,
        encode=tokenizer.encode,
        special_ids=tokenizer.special_ids,
        end_token_ids=[tokenizer.eos_token_id],
        vocab_size=tokenizer.vocab_size,
    )


def admits(compiler: GrammarCompiler, form: ToolForm, rules: CallRules, text: str) -> bool:
    """Whether the whole of ``text`` is an answer."""
    spec = GrammarSpec(GrammarKind.LARK, tool_grammar(form, TOOLS, rules))
    state, tokenizer = compiler.compile(spec).start(), Gemma3Tokenizer()
    for token_id in tokenizer.encode(text):
        if state.is_complete or not _has(state.mask(), token_id):
            return False
        state.accept([token_id])
    return state.is_complete or _has(state.mask(), tokenizer.eos_token_id)


def _has(mask: bytes, token_id: int) -> bool:
    return bool(mask[token_id // 8] >> token_id % 8 & 1)


def call(form: ToolForm, name: str, arguments: Mapping[str, object]) -> str:
    written = json.dumps(arguments, ensure_ascii=False)
    if form is FUNCTIONGEMMA and arguments:
        written = ESCAPED
    return form.head(name) + written + form.after_arguments


def read(form: ToolForm, text: str, rules: CallRules = FREE, *, seed: int = 0) -> tuple[str, list[list[str]]]:
    """Text and calls; the pieces are as long as chance will have it."""
    rng, parser, at, deltas = random.Random(seed), ToolParser(form, rules, names=NAMES), 0, []
    while at < len(text):
        size = rng.choice((1, 1, 2, 3, 9)) if seed else len(text)
        deltas += parser.push(text[at : at + size])
        at += size
    deltas += parser.finish()
    calls: list[list[str]] = []
    for delta in (each for each in deltas if isinstance(each, CallDelta)):
        if delta.name is not None:
            calls.append([delta.name, ""])
        calls[delta.index][1] += delta.arguments
    return "".join(each.text for each in deltas if isinstance(each, TextDelta)), calls


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_which_answers_there_are(compiler: GrammarCompiler, form: ToolForm) -> None:
    one, other = call(form, "weather", ARGUMENTS), call(form, "now", {})
    parallel, single = CallRules(ends=("\nUser:",)), CallRules(is_parallel=False)
    required = replace(parallel, is_required=True)
    for text, is_free, is_parallel, is_required in [
        ("Hello", True, True, False),
        ("", True, True, False),
        (one, True, True, True),
        (f"Well. {other}", True, True, False),
        (one + other, False, True, True),
        (f"{one}\n\n{other}\nUser:", False, True, True),
        (f"{one} {other}", False, False, False),
        (call(form, "no", {}), False, False, False),
        (call(form, "weather", {}), False, False, False),
        (f"{other} or so", False, False, False),
        (other[:-1], False, False, False),
    ]:
        assert admits(compiler, form, single, text) is is_free, text
        assert admits(compiler, form, parallel, text) is is_parallel, text
        assert admits(compiler, form, required, text) is is_required, text


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_no_call_beside_the_grammar_in_free_text(compiler: GrammarCompiler, form: ToolForm) -> None:
    """Behind what opens a call, white space or not, nothing else is admitted."""
    rules = CallRules()
    for opening in ("".join(form.opening), " \n ".join(form.opening)):
        assert not admits(compiler, form, rules, f"So {opening}")
        assert not admits(compiler, form, rules, f'So {opening} "anything"')
        assert admits(compiler, form, rules, f"So {opening}{other_end(form)}")
        assert admits(compiler, form, rules, f"So {opening[:-1]} and so on")


def other_end(form: ToolForm) -> str:
    return call(form, "now", {}).removeprefix("".join(form.opening))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_structured_answer_or_a_call(compiler: GrammarCompiler, form: ToolForm) -> None:
    rules = CallRules(answer=ANSWER)
    for text, is_one in [('{"name": "now"}', True), ('{"name": "x"}', True), (call(form, "weather", ARGUMENTS), True),
                         (call(form, "now", {})[:-1] + ', "x": 1}', False), ("Hello", False),
                         ('{"name": "now", "x": 1}', False), (call(form, "weather", {}), False)]:  # fmt: skip
        assert admits(compiler, form, rules, text) is is_one, text
    assert read(form, '{"name": "now"}', rules) == ('{"name": "now"}', [])
    assert read(form, call(form, "now", {}), rules) == ("", [["now", "{}"]])


def test_stop_strings_end_text_alone(compiler: GrammarCompiler) -> None:
    rules = CallRules(stop=("\nUser:", "days"))
    assert admits(compiler, GOOGLES_JSON, rules, "Hi\nUser:")
    assert not admits(compiler, GOOGLES_JSON, rules, "Hi\nUser: x")
    assert admits(compiler, GOOGLES_JSON, rules, call(GOOGLES_JSON, "weather", ARGUMENTS))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("seed", range(12))
def test_pieces_make_no_difference(form: ToolForm, seed: int) -> None:
    one, other = call(form, "weather", ARGUMENTS), call(form, "now", {})
    expected = ["weather", json.dumps(ARGUMENTS, ensure_ascii=False)]
    rules = CallRules(stop=("\nUser:", "qq"))
    assert read(form, one, rules, seed=seed) == ("", [expected])
    text = f"I {{ see.\n ```json\n{other}\n\n{one}\n```"
    assert read(form, text, rules, seed=seed) == ("I { see.", [["now", "{}"], expected])
    assert read(form, f"Hi \nUse \nUser:{other}", rules, seed=seed) == ("Hi \nUse ", [])
    text = "".join(form.opening)[:-1] + " `` \n```x\n y \n"
    assert read(form, text, rules, seed=seed) == (text, [])
    assert read(form, one[:-5], rules, seed=seed)[1][0][0] == "weather"


def test_what_is_held_back_is_bounded() -> None:
    parser = ToolParser(GOOGLES_JSON, CallRules(), names=NAMES)
    shown = [delta.text for _ in range(500) for delta in parser.push(" {") if isinstance(delta, TextDelta)]
    assert len("".join(shown)) > 1000 - 130


def test_what_is_no_call_raises() -> None:
    for form, text in [(GOOGLES_JSON, '{"name": 5' + "x" * 200), (GOOGLES_JSON, '{"name": "now", "parameters": []}x' + "y" * 99),
                       (FUNCTIONGEMMA, "<start_function_call>call:no w{}" + "x" * 99)]:  # fmt: skip
        with pytest.raises(ToolParseError):
            ToolParser(form, CallRules(), names=NAMES).push(text)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "a+"}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "additionalProperties": False},
        {"type": "object", "properties": {"a:b": {"type": "null"}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"enum": ["<escape>"]}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {}, "additionalProperties": False, "minProperties": 1},
    ],
)
def test_what_functiongemma_has_no_words_for_is_json(schema: dict[str, object]) -> None:
    assert EscapedArguments().lark(schema) == f"%json {json.dumps(schema)}"
    text = '<start_function_call>call:now{"a": {"b": "}"}}<end_function_call>'
    for at in range(len(text)):
        parser = ToolParser(FUNCTIONGEMMA, FREE, names=NAMES)
        deltas = [delta for piece in (text[:at], text[at:]) for delta in parser.push(piece)]
        arguments = [delta.arguments for delta in deltas if isinstance(delta, CallDelta)]
        assert "".join(arguments) == '{"a": {"b": "}"}}', at


@pytest.mark.parametrize("required", [(), ("a",), ("b",), ("c",), ("a", "c")])
def test_keys_and_commas_of_functiongemma(compiler: GrammarCompiler, required: tuple[str, ...]) -> None:
    properties = {"a": {"type": "null"}, "b": {"type": ["boolean", "null"]}, "c": {"type": "number"}}
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    grammar = "\n".join([f"start: {EscapedArguments().lark(schema)}", *EscapedArguments.definitions])
    values = {"a": "null", "b": "true", "c": "-1.5"}
    for number in range(8):
        keys = [key for bit, key in enumerate("abc") if number >> bit & 1]
        text = "{" + ",".join(f"{key}:{values[key]}" for key in keys) + "}"
        state = compiler.compile(GrammarSpec(GrammarKind.LARK, grammar)).start()
        ids = Gemma3Tokenizer().encode(text)
        is_one = all(_has(state.mask(), i) and (state.accept([i]) or True) for i in ids)
        assert is_one is (set(required) <= set(keys)), text
