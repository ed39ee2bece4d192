"""One row of a batch and what becomes of it: the values that pass between source, task and output.

Owns no behaviour. Immutable, so any thread may read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Columns = Mapping[str, Any]
"""A row of a table, or a line's JSON object: column -> value."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read; ``why`` is for a person and quotes nothing of it."""

    why: str


@dataclass(frozen=True, slots=True)
class RowRequest:
    """What is asked of the engine for one row: the path of an endpoint and the JSON value of a body."""

    url: str
    body: object


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What became of one row.

    Attributes:
        status: as of HTTP; 200 is an answer.
        body: the JSON object of the answer or of the error.
        num_tokens: of prompt and completion.
    """

    status: int
    body: Mapping[str, Any]
    num_tokens: int = 0

    @property
    def is_failed(self) -> bool:
        """Whether there is no answer."""
        return self.status != 200


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the output: a JSON object's members, or cells by column."""

    members: Columns
    is_failed: bool = False
    num_tokens: int = 0
