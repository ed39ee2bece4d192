"""One question to every row of a table: ``"Extract ...: {text}"``, and columns for the answers.

Owns how a row fills a template in, what is asked then, and which columns an answer becomes. Knows
nothing of files or of the engine. Pure.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from openai_api.batch.answering import CHAT_URL, COMPLETIONS_URL, DECISIONS_URL
from openai_api.batch.row import BadRow, Columns, Record, RowOutcome, RowRequest

CONFIDENCE_COLUMN, ERROR_COLUMN = "confidence", "error"

_BODIES: Mapping[str, Callable[[str], dict[str, object]]] = {
    CHAT_URL: lambda text: {"messages": [{"role": "user", "content": text}]},
    COMPLETIONS_URL: lambda text: {"prompt": text},
    DECISIONS_URL: lambda text: {"input": text},
}
"""What a filled template is in a body, by the url of who answers."""


class Template:
    """Text with names of columns in braces; ``{{`` and ``}}`` are braces.

    Raises:
        ValueError: it is no such text, or names no column.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._parts = [
                (literal, name) for literal, name, *rest in Formatter().parse(text) if self._plain(name, rest)
            ]
        except ValueError as error:
            raise ValueError(f"--template: {error}; a brace itself is written twice") from None
        self.names = tuple(dict.fromkeys(name for _, name in self._parts if name is not None))
        if not self.names:
            raise ValueError("--template names no column, as {text} does")

    @staticmethod
    def _plain(name: str | None, rest: Sequence[str | None]) -> bool:
        """Whether it is a column's name alone: no attribute, no index, no format."""
        if any(rest) or name == "" or any(char in (name or "") for char in ".[]"):
            raise ValueError(f"{{{name}}} is not the name of a column")
        return True

    def fill(self, row: Columns) -> str | BadRow:
        """The text for ``row``; values that are no text as JSON."""
        for name in self.names:
            if name not in row:
                return BadRow(f"The row has no column {name!r}.")
        return "".join(literal + ("" if name is None else _text(row[name])) for literal, name in self._parts)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTask:
    """The same of every row.

    Attributes:
        url: who answers, one of ``URLS``.
        settings: members of every body: how much, how drawn, of which shape; or the one question of decisions.
        properties: the columns of an answer that is a JSON object; empty: one column has its text.
        column: the name of that one.
    """

    template: Template
    url: str
    settings: Mapping[str, Any]
    properties: tuple[str, ...]
    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What an answer adds to a row."""
        told = (CONFIDENCE_COLUMN,) if self.url == DECISIONS_URL else ()
        return (*(self.properties or (self.column,)), *told, ERROR_COLUMN)

    def request(self, row: Columns) -> RowRequest | BadRow:
        """What is asked of ``row``, or why nothing can be."""
        text = self.template.fill(row)
        if isinstance(text, BadRow):
            return text
        for column in self.columns:
            if column in row:
                return BadRow(f"The row has a column {column!r} already.")
        return RowRequest(self.url, {**_BODIES[self.url](text), **self.settings})

    def record(self, row: Columns | BadRow, outcome: RowOutcome | BadRow) -> Record:
        """The row and its answer's columns, or its error."""
        columns = {} if isinstance(row, BadRow) else row
        if isinstance(outcome, BadRow):
            return Record({**columns, ERROR_COLUMN: outcome.why}, is_failed=True)
        if outcome.is_failed:
            message = outcome.body["error"]["message"]
            return Record({**columns, ERROR_COLUMN: message}, is_failed=True)
        added = self._columns_of(outcome.body)
        return Record({**columns, **added}, is_failed=ERROR_COLUMN in added, num_tokens=outcome.num_tokens)

    def _columns_of(self, body: Mapping[str, Any]) -> Columns:
        if self.url == DECISIONS_URL:
            (decided,) = body["answers"]
            return {self.column: decided["choice"], CONFIDENCE_COLUMN: decided["confidence"]}
        choice = body["choices"][0]
        return self._columns_of_text(
            choice["message"]["content"] if self.url == CHAT_URL else choice["text"], choice["finish_reason"]
        )

    def _columns_of_text(self, text: str, finish_reason: str) -> Columns:
        if finish_reason == "length" and (self.properties or "structured_outputs" in self.settings):
            return {ERROR_COLUMN: "The answer is longer than --max-tokens: it has no end."}
        if not self.properties:
            return {self.column: text}
        value: dict[str, Any] = json.loads(text)
        return value
