"""Choices, structural tags and GBNF: what they admit, and what is refused with its line."""

import pytest

from engine.errors import GrammarError
from engine.grammar.compiler import GrammarCompiler
from engine.grammar.forms import StructuralTag, choice_spec, grammar_spec, structural_tag_spec
from tests.engine.grammars import TinyVocabulary, fits

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws (value ("," ws value)*)? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ws
# white space
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ [ \t\n]*
ws    ::= [ \t\n]*
"""
CHESS = r"""
root ::= (
    # it begins
    "1. " move " " move "\n"
    ([1-9] [0-9]? ". " move " " move "\n")+
)
move ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"""


@pytest.fixture(scope="module")
def vocabulary() -> TinyVocabulary:
    return TinyVocabulary()


@pytest.fixture(scope="module")
def compiler(vocabulary: TinyVocabulary) -> GrammarCompiler:
    return vocabulary.compiler()


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        (JSON, ['{"a": [1, -2.5, "x\\n\\u00e9", {"b":null}]}', "{}", '{"a": 1}\n  '], ['{"a" 1}', "[]", '{"a": "\\x"}']),
        (ARITHMETIC, ["a +b*3 = 7\n", "(a+1) *2= 7 \n\n", "a=1\nb=2\n"], ["a + b = 7\n", "a=1"]),
        (CHESS, ["1. e4 e5\n2. Nf3 O-O-O+\n"], ["1. e9 e5\n2. a1 a1\n"]),
        (r"root ::= [a-z/\]\-]*", ["a]-/", ""], ["^", "A"]),
        (r'root::="\u00e9\U0001F600\x41\t\\\""', ['\u00e9\U0001f600A\t\\"'], ["e"]),
        ("root ::= a-B\na-B ::= \"x\" root?", ["xxx"], [""]),
        ('root ::= "a" |\n  "b"\n   | "c"', ["a", "b", "c"], ["abc"]),
        ("root ::= .", ["\n", "\u4e2d"], ["", "ab"]),
        ('root ::= "a"{,3}', ["", "aaa"], ["aaaa"]),
        ('root ::= ("a" | "b"){2} "c"{2,}', ["abcc", "bbccc"], ["acc", "abc"]),
        ('root ::= "x" {2} y+?\ny ::= "q"', ["xx", "xxqq"], ["xxx"]),
        ("root ::= [^a] [&~^-]", ["b^", "\u00e9-"], ["a&", "b."]),
        ('root ::= aB a_b\naB ::= "x"\na_b ::= "y"', ["xy"], ["yx"]),
        ('root ::= "a#b" # "c"\n', ["a#b"], ["a#bc"]),
        ('root ::= [\\u4e00-\\u9fff]+', ["\u4e2d\u6587"], ["a"]),
        ('root ::= "//" "/*" [/]', ["///*/"], ["//"]),
        ('root ::= "\x01\x7f" ""', ["\x01\x7f"], ["\x01"]),
        ('root ::= "a" | root "," root', ["a", "a,a,a"], ["a,"]),
        ('root ::= "no"\nroot ::= "yes"', ["yes"], ["no"]),
    ],
)  # fmt: skip
def test_gbnf_says_the_same_in_lark(
    text: str, good: list[str], bad: list[str], compiler: GrammarCompiler, vocabulary: TinyVocabulary
) -> None:
    grammar = compiler.compile(grammar_spec(text))
    assert [answer for answer in good if not fits(grammar, answer, vocabulary)] == []
    assert [answer for answer in bad if fits(grammar, answer, vocabulary)] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('root ::= "a"\nb ::= c', "line 2: there is no rule 'c'"),
        ('x ::= "a"', 'no rule "root"'),
        ('root ::=\n\n "a', "line 3: a closing quote"),
        ("root ::= [a", "closing bracket"),
        ('root ::= ("a"', "closing parenthesis"),
        ('root ::= "a" )', "line 1: this is not understood"),
        ("root ::= <[1]>", "names a token"),
        ("root ::= [z-a]", "reversed"),
        ("root ::= []", "no character"),
        (r'root ::= "\q"', "means no character"),
        (r'root ::= "\ud800"', "means no character"),
        ('root ::= "a"{3,2}', "minimum is greater"),
        ('root ::= "a"{x}', "a repetition is written"),
        ("root ::= " + "(" * 500 + '"a"' + ")" * 500, "more than 100 groups"),
    ],
)
def test_gbnf_that_is_not_well_formed_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(GrammarError, match=words) as caught:
        grammar_spec(text)
    assert caught.value.code == "invalid_grammar"


def test_lark_stays_as_it_is() -> None:
    assert grammar_spec('start: "::="').text == 'start: "::="'


@pytest.mark.parametrize(
    "choices",
    [
        ["a", "ab", "abc", "b"],
        ['q"u\\o\n/\u00e9\U0001f600', "//x", "<eos>", " x "],
        ["\x00\x1f\x7f\u2028", "\x7f"],
        ["a", "a"],
    ],
)
def test_a_choice_is_one_of_the_texts(
    choices: list[str], compiler: GrammarCompiler, vocabulary: TinyVocabulary
) -> None:
    grammar = compiler.compile(choice_spec(choices))
    assert all(fits(grammar, choice, vocabulary) for choice in choices)
    assert not any(fits(grammar, other, vocabulary) for other in ("", "abcd", "x", choices[0] * 2))


def test_there_must_be_a_choice() -> None:
    with pytest.raises(GrammarError, match="empty"):
        choice_spec([])


SCHEMA = (
    '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}'
)
TAGS = [StructuralTag("<function=f>", SCHEMA, "</function>"), StructuralTag("<function=g>", "{}", "</function>")]


def test_behind_a_trigger_only_a_tag_is_possible(compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    grammar = compiler.compile(structural_tag_spec(TAGS, ["<function="]))
    for good in (
        "",
        "a <b>\n",
        'hi <function=f>{"a": 3}</function> on',
        "<function=g>[1]</function><function=g>2</function>",
    ):
        assert fits(grammar, good, vocabulary), good
    for bad in ('<function=f>{"a": "x"}</function>', "<function=h>", "<function=", '<function=f>{"a": 3}'):
        assert not fits(grammar, bad, vocabulary), bad


@pytest.mark.parametrize(
    ("triggers", "words"),
    [
        ([], "not empty"),
        ([""], "not empty"),
        (["<x"], "no structural tag begins"),
        (["<function=f"], "no trigger begins"),
    ],
)
def test_every_tag_has_a_trigger(triggers: list[str], words: str) -> None:
    with pytest.raises(GrammarError, match=words):
        structural_tag_spec(TAGS, triggers)


def test_a_schema_within_lark_is_as_compact_as_any_other(compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    schema = (
        '{"type": "array", "items": {"type": "null", "format": "color"}, "x-guidance": {"whitespace_flexible": true}}'
    )
    grammar = compiler.compile(grammar_spec(f'start: "%json" %json {schema} "." // %json'))
    assert fits(grammar, "%json[null, null].", vocabulary)
    assert not fits(grammar, "%json[null,null].", vocabulary)


@pytest.mark.parametrize(
    ("schema", "words", "code"),
    [
        ('{"items": {"not": {}}}', "items.not", "invalid_json_schema"),
        ('{"type": "string", "pattern": "("}', "pattern: it is no supported", "invalid_json_schema"),
        ('{"type"', "line 2 has no JSON", "invalid_grammar"),
    ],
)
def test_a_schema_within_lark_is_refused_with_its_place(
    schema: str, words: str, code: str, compiler: GrammarCompiler
) -> None:
    with pytest.raises(GrammarError, match=words) as caught:
        compiler.compile(grammar_spec(f"start: a\na: %json {schema}"))
    assert caught.value.code == code
