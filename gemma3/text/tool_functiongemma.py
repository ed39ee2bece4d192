"""FunctionGemma's calls: ``<start_function_call>call:NAME{city:<escape>Paris<escape>}<end_function_call>``.

Owns that notation of arguments: its grammar, made from a JSON schema, and the way back to JSON.
What it has no exact words for is written as JSON between the same marks: out of the model's habit,
but never against the schema. Source: Google's page "FunctionGemma formatting and best practices".
Immutable but for a scanner, which one answer uses.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gemma3.text.tool_form import ArgumentsPiece, ToolForm, ToolParseError
from gemma3.text.tool_json import JsonScanner

_ESCAPE = "<escape>"
_KEY = re.compile(r"[A-Za-z0-9_$.-]{1,64}")
_MAX_PROPERTIES, _MAX_DEPTH = 32, 8
_INTEGER = r"/-?(0|[1-9][0-9]{0,14})/"
_NUMBER = r"/-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?/"
_ANY_INTEGER = 10**15 - 1  # bounds beyond these are none: some libraries write those of a float64
_SAYS_NOTHING = frozenset({"title", "description", "default", "examples", "$schema", "$comment"})


class _NoWordsError(Exception):
    """The notation cannot say what this schema says."""


class EscapedArguments:
    """An ``ArgumentsNotation``."""

    # Any text without the mark; a negation alone would admit bytes that are no UTF-8.
    definitions = ('ESCAPED: "<escape>" (/(?s:.*)/ & ~/(?s:.*)<escape>(?s:.*)/) "<escape>"',)

    def lark(self, schema: Mapping[str, object]) -> str:
        """In the notation where it has words for ``schema``, else JSON."""
        try:
            return _value(schema, 0)
        except _NoWordsError:
            return f"%json {json.dumps(schema)}"

    def scanner(self) -> "EscapedScanner":
        """A new one for each call."""
        return EscapedScanner()


def _value(schema: Any, depth: int) -> str:
    """Lark of a value; raises ``_NoWordsError``."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        raise _NoWordsError
    says = {name: value for name, value in schema.items() if name not in _SAYS_NOTHING}
    kind = says.get("type")
    if says.keys() == {"anyOf"} or isinstance(kind, list):
        options = says["anyOf"] if "anyOf" in says else [{**says, "type": each} for each in kind or ()]
        return f"({' | '.join(_value(option, depth + 1) for option in options)})"
    if says.keys() - {"type"} in ({"enum"}, {"const"}):
        return _one_of(says.get("enum", [says.get("const")]), kind)
    match kind:
        case "object":
            return _object(says, depth)
        case "array":
            return _array(says, depth)
        case "integer" | "number":
            return _number(says)
    words = {"string": "ESCAPED", "boolean": '("true" | "false")', "null": '"null"'}
    if not isinstance(kind, str) or kind not in words or len(says) > 1:
        raise _NoWordsError
    return words[kind]


def _one_of(values: Sequence[object], kind: object) -> str:
    if not values or not all(isinstance(value, str) and _ESCAPE not in value for value in values):
        raise _NoWordsError
    if kind not in (None, "string"):
        raise _NoWordsError
    return f"({' | '.join(_quoted(f'{_ESCAPE}{value}{_ESCAPE}') for value in values)})"


def _number(says: Mapping[str, Any]) -> str:
    """Only bounds that bound nothing have words."""
    low, high = says.get("minimum", -_ANY_INTEGER), says.get("maximum", _ANY_INTEGER)
    if says.keys() - {"type", "minimum", "maximum"} or low > -_ANY_INTEGER or high < _ANY_INTEGER:
        raise _NoWordsError
    return _INTEGER if says["type"] == "integer" else _NUMBER


def _array(says: Mapping[str, Any], depth: int) -> str:
    low, high = says.get("minItems", 0), says.get("maxItems")
    if says.keys() - {"type", "items", "minItems", "maxItems"} or (high is not None and high < max(low, 1)):
        raise _NoWordsError
    item = _value(says.get("items"), depth + 1)
    more = f"{{{max(low - 1, 0)},{'' if high is None else high - 1}}}"
    items = f'({item} ("," {item}){more})'
    return f'"[" {items}{"" if low else "?"} "]"'


def _object(says: Mapping[str, Any], depth: int) -> str:
    """Its properties in their order; the comma stands before all that are not the first."""
    properties, required = says.get("properties", {}), set(says.get("required", ()))
    if says.keys() - {"type", "properties", "required", "additionalProperties"} or says.get("additionalProperties", 1):
        raise _NoWordsError
    if len(properties) > _MAX_PROPERTIES or not all(map(_KEY.fullmatch, properties)) or required - properties.keys():
        raise _NoWordsError
    as_first = as_further = ""
    for key, schema in reversed(properties.items()):
        pair = f"{_quoted(key + ':')} {_value(schema, depth + 1)}"
        if key in required:
            as_first, as_further = f"{pair} {as_further}", f'"," {pair} {as_further}'
        else:
            as_first = f"({pair} {as_further} | {as_first})" if as_first.strip() else f"({pair} {as_further})?"
            as_further = f'("," {pair})? {as_further}'
    return f'"{{" {as_first} "}}"'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class EscapedScanner:
    """The notation as JSON, piece by piece. Mutable.

    Arguments in JSON are known by the quote of their first key.
    """

    def __init__(self) -> None:
        self._json: JsonScanner | None = None
        self._open = ""  # brackets
        self._is_in_string = self._is_at_key = False

    def read(self, text: str) -> ArgumentsPiece:
        """As ``ArgumentsScanner``."""
        if self._json is None and not self._open and text.startswith('{"'):
            self._json = JsonScanner()
        if self._json is not None:
            return self._json.read(text)
        if not self._open and not text.startswith("{"):
            raise ToolParseError("arguments are no object.")
        if text == "{" and not self._open:  # the next character tells the notation
            return ArgumentsPiece("", 0, is_complete=False)
        parts: list[str] = []
        num_read = self._read_all(text, parts)
        return ArgumentsPiece("".join(parts), num_read, is_complete=num_read > 0 and not self._open)

    def _read_all(self, text: str, parts: list[str]) -> int:
        """How many characters were taken."""
        at = 0
        while at < len(text):
            num_read = self._read_string(text[at:], parts) if self._is_in_string else self._read_one(text[at:], parts)
            at += num_read
            if num_read == 0 or not self._open:
                break
        return at

    def _read_string(self, text: str, parts: list[str]) -> int:
        end = text.find(_ESCAPE)
        self._is_in_string = end < 0
        if end >= 0:
            parts.append(_quoted(text[:end])[1:])
            return end + len(_ESCAPE)
        num_safe = len(text) - next((n for n in range(len(_ESCAPE), 0, -1) if text.endswith(_ESCAPE[:n])), 0)
        parts.append(_quoted(text[:num_safe])[1:-1])
        return num_safe

    def _read_one(self, text: str, parts: list[str]) -> int:
        """One mark, key or character between strings; 0 if more is needed to tell."""
        if text.startswith(_ESCAPE):
            parts.append('"')
            self._is_in_string = True
            return len(_ESCAPE)
        if _ESCAPE.startswith(text):
            return 0
        if self._is_at_key and text[0] != "}":
            key, colon, _ = text.partition(":")
            parts.append(f"{_quoted(key)}: " if colon else "")
            self._is_at_key = not colon
            return len(key) + 1 if colon else 0
        parts.append(", " if text[0] == "," else text[0])
        self._note(text[0])
        return 1

    def _note(self, char: str) -> None:
        if char in "{[":
            self._open += char
        elif char in "}]":
            self._open = self._open[:-1]
        self._is_at_key = char == "{" or (char == "," and self._open.endswith("{"))


FUNCTIONGEMMA = ToolForm(
    name="functiongemma",
    opening=("<start_function_call>",),
    before_name="call:",
    before_arguments="",
    after_arguments="<end_function_call>",
    arguments=EscapedArguments(),
    ends=("<start_function_response>",),
)
