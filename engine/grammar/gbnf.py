"""GBNF, llama.cpp's notation of grammars, read into its rules; ``engine.grammar.gbnf_to_lark`` writes them as Lark.

Source of the notation: llama.cpp's ``grammars/README.md``; beside it, a rule may go on with "|" in a new line, and any
punctuation may be escaped. Plain functions: any thread.
"""

import re
import sys
from dataclasses import dataclass

from engine.errors import GrammarError
from engine.grammar.lark import literal

MAX_NESTING = 100
MAX_RULES = 1000
_IS_GBNF = re.compile(r"(?m)^\s*[A-Za-z0-9_-]+\s*::=")
_SPACE = re.compile(r"(?:\s|\#[^\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_BEGINS_RULE = re.compile(rf"{_NAME.pattern}{_SPACE.pattern}::=")
_REPEAT = re.compile(r"\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nrt]|[!-/:-@\[-`{-~]))")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Text:
    """Lark of a literal or of one character. ``is_space``: all that it can be is white space."""

    lark: str
    is_space: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """To a rule, in a line of the text."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Group:
    """Alternatives of sequences, as often as ``count`` says: "", "*", "{2,}" and so on."""

    alternatives: list[list["Node"]]
    count: str


Node = Text | Reference | Group
Rules = dict[str, Group]


def is_gbnf(text: str) -> bool:
    """It is meant as GBNF, not as Lark."""
    return _IS_GBNF.search(text) is not None


def rules_of(text: str) -> Rules:
    """The rules by name; of two with one name the later one holds, as in llama.cpp.

    Raises:
        GrammarError: it is not well formed; says which line.
    """
    return _Parser(text).rules()


def error_at(line: int, words: str) -> GrammarError:
    return GrammarError(f"the grammar cannot be used: line {line}: {words}.")


class _Parser:
    """One pass over the text; ``_at`` is where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def rules(self) -> Rules:
        found: Rules = {}
        self._skip_space()
        while self._at < len(self._text):
            name = self._matched(_NAME, "a rule's name is expected")
            self._skip_space()
            if not self._text.startswith("::=", self._at):
                raise self._error("::= is expected")
            self._at += 3
            if len(found) == MAX_RULES:
                raise self._error(f"it has more than {MAX_RULES} rules")
            found[name] = Group(self._alternatives(), "")
            if self._at < len(self._text) and not self._begins_rule():
                raise self._error("this is not understood")
        return found

    def _alternatives(self) -> list[list[Node]]:
        found = [self._sequence()]
        while self._text.startswith("|", self._at):
            self._at += 1
            found.append(self._sequence())
        return found

    def _sequence(self) -> list[Node]:
        found: list[Node] = []
        self._skip_space()
        while self._at < len(self._text) and self._text[self._at] not in "|)" and not self._begins_rule():
            found.append(self._repeated())
        return found

    def _repeated(self) -> Node:
        node = self._element()
        self._skip_space()
        while (count := self._count()) is not None:
            node = Group([[node]], count)
            self._skip_space()
        return node

    def _element(self) -> Node:
        c = self._text[self._at]
        if c == '"':
            text = self._literal()
            return Text(literal(text), text == "" or text.isspace())
        if c == "[":
            return self._char_class()
        if c == ".":
            self._at += 1
            return Text("/(?s:.)/", is_space=False)
        if c == "(":
            return self._group()
        if c == "<":
            raise self._error("it names a token; only text is allowed")
        line = self._line()
        return Reference(self._matched(_NAME, "this is not understood"), line)

    def _group(self) -> Group:
        self._at += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._error(f"it nests more than {MAX_NESTING} groups")
        found = Group(self._alternatives(), "")
        if not self._text.startswith(")", self._at):
            raise self._error("a closing parenthesis is expected")
        self._at += 1
        self._depth -= 1
        return found

    def _count(self) -> str | None:
        """Of a repetition, as Lark writes it."""
        if self._text[self._at : self._at + 1] in ("*", "+", "?") and self._at < len(self._text):
            self._at += 1
            return self._text[self._at - 1]
        if not self._text.startswith("{", self._at):
            return None
        found = _REPEAT.match(self._text, self._at)
        if found is None or not (found[1] or found[3]) or (found[3] and not found[2]):
            raise self._error("a repetition is written {2}, {2,}, {2,5} or {,5}")
        if found[1] and found[3] and int(found[1]) > int(found[3]):
            raise self._error("a repetition's minimum is greater than its maximum")
        self._at = found.end()
        return f"{{{found[1] or 0},{found[3]}}}" if found[2] else f"{{{found[1]}}}"

    def _literal(self) -> str:
        self._at += 1
        chars = []
        while not self._text.startswith('"', self._at):
            chars.append(self._char("a closing quote"))
        self._at += 1
        return "".join(chars)

    def _char_class(self) -> Text:
        """As an expression: every character by its number, so that none means anything else there."""
        self._at += 1
        is_negated = self._text.startswith("^", self._at)
        self._at += is_negated
        ranges, is_space = [], not is_negated
        while not self._text.startswith("]", self._at):
            first = last = self._char("a closing bracket")
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._char("a closing bracket")
            if first > last:
                raise self._error("a range of characters is reversed")
            is_space = is_space and first == last and first.isspace()
            ranges.append(f"\\x{{{ord(first):x}}}-\\x{{{ord(last):x}}}")
        if not ranges:
            raise self._error("there is no character between the brackets")
        self._at += 1
        return Text(f"/[{'^' if is_negated else ''}{''.join(ranges)}]/", is_space)

    def _char(self, expected: str) -> str:
        """The next character of a literal or a class, unescaped."""
        if self._at >= len(self._text):
            raise self._error(f"{expected} is expected")
        if self._text[self._at] != "\\":
            self._at += 1
            return self._text[self._at - 1]
        found = _ESCAPE.match(self._text, self._at)
        code = int(found[1] or found[2] or found[3] or "0", 16) if found else -1
        if found is None or code > sys.maxunicode or 0xD800 <= code < 0xE000:
            raise self._error("this escape means no character")
        self._at = found.end()
        return chr(code) if found[4] is None else _CONTROLS.get(found[4], found[4])

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _begins_rule(self) -> bool:
        return _BEGINS_RULE.match(self._text, self._at) is not None

    def _matched(self, pattern: re.Pattern[str], words: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._error(words)
        self._at = found.end()
        return found[0]

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _error(self, words: str) -> GrammarError:
        return error_at(self._line(), words)
