"""The tables of supported fields as Markdown: ``python -m openai_api.request.field_tables
docs/api.md`` writes them anew.

Owns the form of a row; knows what is in it from ``field_support`` and ``neutral_fields``. A program of its own, run after
a field or a sampling setting was added; the server does not use it.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.neutral_values import Values, in_words
from openai_api.request.request_field import RequestField


def table_of(fields: Sequence[RequestField]) -> str:
    """A Markdown table, one line a field: name, support, note. Ends with a line break."""
    rows = [f"| `{field.name}` | {field.support.replace('_', ' ')} | {field.note} |" for field in fields]
    return "\n".join(["| field | support | |", "|---|---|---|", *rows, ""])


def table_of_neutral_values(names: Mapping[str, Values]) -> str:
    """A Markdown table, one line for all names with the same values. Ends with a line break."""
    names_by_values: dict[str, list[str]] = {}
    for name, values in names.items():
        names_by_values.setdefault(in_words(values), []).append(f"`{name}`")
    rows = [f"| `{words}` | {', '.join(names)} |" for words, names in names_by_values.items()]
    return "\n".join(["| values | names |", "|---|---|", *rows, ""])


def with_tables(document: str) -> str:
    """``document`` with the table below each heading ``### Fields of `ENDPOINT` ``, and the one of
    the values that ask for nothing, written anew.

    Raises:
        ValueError: a heading or its table is missing.
    """
    for endpoint, fields in FIELDS_BY_ENDPOINT.items():
        document = _with_table(document, f"### Fields of `{endpoint}`", table_of(fields))
    return _with_table(document, "### Values that ask for nothing", table_of_neutral_values(IN_ANY_REQUEST))


def _with_table(document: str, heading: str, table: str) -> str:
    found = re.search(rf"(?<={re.escape(heading)}\n\n)(\|.*\n)+", document)
    if found is None:
        raise ValueError(f"The document has no table below {heading}.")
    return document[: found.start()] + table + document[found.end() :]


def main(argv: Sequence[str]) -> int:
    """Write the tables in the one file named in ``argv``; the exit status."""
    (path,) = map(Path, argv)
    path.write_text(with_tables(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
