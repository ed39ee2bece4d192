"""GBNF, llama.cpp's notation of grammars, written as Lark in the grammar library's dialect.

Owns the conversion. A rule that does not lead back to itself becomes a terminal: one expression is followed faster than
a rule of single characters, and exactly. Source of the notation: llama.cpp's ``grammars/README.md``; beside it, a rule
may go on with "|" in a new line, and any punctuation may be escaped. Plain functions: any thread.
"""

import re
import sys
from dataclasses import dataclass, field

from engine.errors import GrammarError
from engine.grammar_lark import literal

MAX_NESTING = 100
_IS_GBNF = re.compile(r"(?m)^\s*[A-Za-z0-9_-]+\s*::=")
_SPACE = re.compile(r"(?:\s|\#[^\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_BEGINS_RULE = re.compile(rf"{_NAME.pattern}{_SPACE.pattern}::=")
_REPEAT = re.compile(r"\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nrt]|[!-/:-@\[-`{-~]))")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class _Reference:
    name: str
    line: int


@dataclass(slots=True)
class _Rule:
    """``parts`` are Lark and names of other rules, in order."""

    parts: list[str | _Reference] = field(default_factory=list)
    is_terminal: bool = False

    @property
    def references(self) -> list[_Reference]:
        return [part for part in self.parts if isinstance(part, _Reference)]


def is_gbnf(text: str) -> bool:
    """It is meant as GBNF, not as Lark."""
    return _IS_GBNF.search(text) is not None


def gbnf_to_lark(text: str) -> str:
    """The same grammar in Lark, beginning at ``root``.

    Raises:
        GrammarError: it is not well formed, names a rule that is not there or a token; says which line.
    """
    rules = _Parser(text).rules()
    if "root" not in rules:
        raise GrammarError('the grammar cannot be used: it has no rule "root".')
    _mark_terminals(rules)
    names = {name: _lark_name(name, at, is_upper=rule.is_terminal) for at, (name, rule) in enumerate(rules.items())}
    lines = [f"start: {names['root']}"]
    for name, rule in rules.items():
        body = " ".join(part if isinstance(part, str) else _known(part, names) for part in rule.parts)
        lines.append(f"{names[name]}: {body}")
    return "\n".join(lines) + "\n"


def _mark_terminals(rules: dict[str, _Rule]) -> None:
    """A rule is a terminal if all that it refers to are."""
    is_new = True
    while is_new:
        is_new = False
        for rule in rules.values():
            if not rule.is_terminal and all(
                ref.name in rules and rules[ref.name].is_terminal for ref in rule.references
            ):
                rule.is_terminal = is_new = True


def _lark_name(name: str, at: int, *, is_upper: bool) -> str:
    """Unique, since GBNF tells names apart that Lark does not."""
    plain = f"r{at}_{name.replace('-', '_')}"
    return plain.upper() if is_upper else plain.lower()


def _known(reference: _Reference, names: dict[str, str]) -> str:
    if reference.name not in names:
        raise _error(reference.line, f"there is no rule {reference.name[:40]!a}")
    return names[reference.name]


def _error(line: int, words: str) -> GrammarError:
    return GrammarError(f"the grammar cannot be used: line {line}: {words}.")


class _Parser:
    """One pass over the text; ``_at`` is where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def rules(self) -> dict[str, _Rule]:
        found: dict[str, _Rule] = {}
        self._skip_space()
        while self._at < len(self._text):
            name = self._matched(_NAME, "a rule's name is expected")
            self._skip_space()
            if not self._text.startswith("::=", self._at):
                raise self._error("::= is expected")
            self._at += 3
            rule = found[name] = _Rule()
            self._alternatives(rule)
            if self._at < len(self._text) and not self._begins_rule():
                raise self._error("this is not understood")
        return found

    def _alternatives(self, rule: _Rule) -> None:
        self._sequence(rule)
        while self._text.startswith("|", self._at):
            self._at += 1
            rule.parts.append("|")
            self._sequence(rule)

    def _sequence(self, rule: _Rule) -> None:
        self._skip_space()
        is_empty = True
        while self._at < len(self._text) and self._text[self._at] not in "|)" and not self._begins_rule():
            self._repeated(rule)
            is_empty = False
        if is_empty:
            rule.parts.append('""')

    def _repeated(self, rule: _Rule) -> None:
        begin = len(rule.parts)
        self._element(rule)
        self._skip_space()
        while (count := self._count()) is not None:
            rule.parts.insert(begin, "(")  # of its own, for one count may follow another
            rule.parts.append(f"){count}")
            self._skip_space()

    def _element(self, rule: _Rule) -> None:
        c = self._text[self._at]
        if c == '"':
            rule.parts.append(literal(self._literal()))
        elif c == "[":
            rule.parts.append(self._char_class())
        elif c == ".":
            self._at += 1
            rule.parts.append("/(?s:.)/")
        elif c == "(":
            self._group(rule)
        elif c == "<":
            raise self._error("it names a token; only text is allowed")
        else:
            line = self._line()
            rule.parts.append(_Reference(self._matched(_NAME, "this is not understood"), line))

    def _group(self, rule: _Rule) -> None:
        self._at += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._error(f"it nests more than {MAX_NESTING} groups")
        rule.parts.append("(")
        self._alternatives(rule)
        if not self._text.startswith(")", self._at):
            raise self._error("a closing parenthesis is expected")
        rule.parts.append(")")
        self._at += 1
        self._depth -= 1

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

    def _char_class(self) -> str:
        """As an expression: every character by its number, so that none means anything else there."""
        self._at += 1
        is_negated = self._text.startswith("^", self._at)
        self._at += is_negated
        ranges = []
        while not self._text.startswith("]", self._at):
            first = last = self._char("a closing bracket")
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._char("a closing bracket")
            if first > last:
                raise self._error("a range of characters is reversed")
            ranges.append(f"\\x{{{ord(first):x}}}-\\x{{{ord(last):x}}}")
        if not ranges:
            raise self._error("there is no character between the brackets")
        self._at += 1
        return f"/[{'^' if is_negated else ''}{''.join(ranges)}]/"

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
        return _error(self._line(), words)
