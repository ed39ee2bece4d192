"""What an answer must be, as plain data; and as the text the grammar library compiles.

Made from a request, on any thread. Knows no library, but its language: a list of grammars, of which the first is the
start and may name the others.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.errors import GrammarError
from engine.grammar.lark import embedded_schemas, with_library_schemas
from engine.grammar.schema import library_schema

MAX_GRAMMAR_BYTES = 64 * 1024
MAX_REPETITIONS = 100_000
_REPETITION = re.compile(r"(?<!\\)\{\s*(?:\d{1,6}\s*,\s*)?(\d{6,})\s*[,}]")


class GrammarKind(StrEnum):
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"  # the library's own dialect, which may embed ``%json {...}`` and ``%regex``

    @property
    def error_code(self) -> str:
        return "invalid_json_schema" if self is GrammarKind.JSON_SCHEMA else "invalid_grammar"


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What an answer must be.

    ``text`` is the JSON of a schema, a regular expression that the whole answer matches, or a Lark grammar. The output
    begins with ``lead``, which is no part of the answer: " " after a transcript's "Assistant:".
    """

    kind: GrammarKind
    text: str
    lead: str = ""


def check_size(spec: GrammarSpec) -> None:
    """Raises: GrammarError if the text is too long, asks for too many repetitions, or has no UTF-8."""
    try:
        num_bytes = len(spec.text.encode()) + len(spec.lead.encode())
    except UnicodeEncodeError:
        raise GrammarError("it holds a lone surrogate.", code=spec.kind.error_code) from None
    if num_bytes > MAX_GRAMMAR_BYTES:
        words = f"it has {num_bytes} bytes; at most {MAX_GRAMMAR_BYTES} are allowed."
        raise GrammarError(words, code=spec.kind.error_code)
    # The library would count them out, with the GIL held.
    if any(len(count) > 6 or int(count) > MAX_REPETITIONS for count in _REPETITION.findall(spec.text)):
        raise GrammarError(f"it repeats a part more than {MAX_REPETITIONS} times.", code=spec.kind.error_code)


def library_text(spec: GrammarSpec) -> str:
    """``spec`` in the library's language. Raises: GrammarError if it is not well formed or not supported."""
    if spec.kind is GrammarKind.JSON_SCHEMA:
        return _grammars(spec, {"json_schema": library_schema(spec.text)})
    if spec.kind is GrammarKind.REGEX:
        return _grammars(spec, {"lark_grammar": f"start: {regex_rule(spec.text)}"})
    return _grammars(spec, {"lark_grammar": with_library_schemas(spec.text)})


def schemas_of(spec: GrammarSpec) -> list[dict[str, Any]]:
    """The JSON schemas in it, as the library takes them."""
    if spec.kind is GrammarKind.JSON_SCHEMA:
        return [library_schema(spec.text)]
    return embedded_schemas(spec.text) if spec.kind is GrammarKind.LARK else []


def _grammars(spec: GrammarSpec, body: dict[str, Any]) -> str:
    """``body`` behind the lead of ``spec``."""
    if not spec.lead:
        return json.dumps({"grammars": [body]})
    start = {"lark_grammar": f"start: {json.dumps(spec.lead)} @answer"}
    return json.dumps({"grammars": [start, body | {"name": "answer"}]})


def regex_rule(regex: str) -> str:
    """A regular expression between slashes: one line, and no slash of its own."""
    shown, escaped = [], False
    for c in regex:
        if c in "/\n\r":
            shown.append({"/": r"\/", "\n": r"\n", "\r": r"\r"}[c][escaped:])
        else:
            shown.append(c)
        escaped = c == "\\" and not escaped
    return f"/{''.join(shown) or '(?:)'}/"  # two slashes begin a comment
