"""Calls of tools as JSON objects, in Google's documented form for Gemma 3.

Every checkpoint gets it that has no form of its own. Knows nothing of templates. Immutable but for
a scanner, which one answer uses.
"""

import json
from collections.abc import Mapping

from gemma3.text.tool_form import ArgumentsPiece, ToolForm, ToolParseError

# Its shape is that of Google's guide to function calling with Gemma 3.
_INSTRUCTIONS = (
    "You have access to functions. To call one, write nothing but a JSON object with its name and its parameters:\n"
    '{"name": function name, "parameters": {parameter name: value}}\n'
    "The functions are:"
)


class JsonArguments:
    """An ``ArgumentsNotation``: the object itself."""

    definitions = ()

    def lark(self, schema: Mapping[str, object]) -> str:
        """The schema goes to the grammar library as it is."""
        return f"%json {json.dumps(schema)}"

    def scanner(self) -> "JsonScanner":
        """A new one for each call."""
        return JsonScanner()


class JsonScanner:
    """Finds the end of an object. Mutable."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = self._is_escaped = False

    def read(self, text: str) -> ArgumentsPiece:
        """As ``ArgumentsScanner``; everything up to the end is taken at once."""
        if self._depth == 0 and not text.startswith("{"):
            raise ToolParseError("arguments are no object.")
        for i, char in enumerate(text):
            self._take(char)
            if self._depth == 0:
                return ArgumentsPiece(text[: i + 1], i + 1, is_complete=True)
        return ArgumentsPiece(text, len(text), is_complete=False)

    def _take(self, char: str) -> None:
        if self._is_in_string:
            self._is_in_string = char != '"' or self._is_escaped
            self._is_escaped = char == "\\" and not self._is_escaped
        elif char == '"':
            self._is_in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1


GOOGLES_JSON = ToolForm(
    name="json",
    opening=("{", '"name"', ":"),
    before_name=' "',
    before_arguments='", "parameters": ',
    after_arguments="}",
    arguments=JsonArguments(),
    ends=("\n```",),
    instructions=_INSTRUCTIONS,
    writes_several=False,  # greedy, the base model writes the same call again and again
)
