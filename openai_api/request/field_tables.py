"""The tables of supported fields as Markdown: ``python -m openai_api.request.field_tables
docs/api.md`` writes them anew.

Owns the form of a row; knows what is in it from ``field_support``. A program of its own, run after
a field or a sampling setting was added; the server does not use it.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from openai_api.request.field_support import FIELDS_BY_ENDPOINT, RequestField


def table_of(fields: Sequence[RequestField]) -> str:
    """A Markdown table, one line a field: name, support, note. Ends with a line break."""
    rows = [f"| `{field.name}` | {field.support.replace('_', ' ')} | {field.note} |" for field in fields]
    return "\n".join(["| field | support | |", "|---|---|---|", *rows, ""])


def with_tables(document: str) -> str:
    """``document`` with the table below each heading ``### Fields of `ENDPOINT` `` written anew.

    Raises:
        ValueError: a heading or its table is missing.
    """
    for endpoint, fields in FIELDS_BY_ENDPOINT.items():
        heading = f"### Fields of `{endpoint}`"
        table = re.compile(rf"(?<={re.escape(heading)}\n\n)(\|.*\n)+")
        found = table.search(document)
        if found is None:
            raise ValueError(f"The document has no table below {heading}.")
        before, after = document[: found.start()], document[found.end() :]
        document = before + table_of(fields) + after
    return document


def main(argv: Sequence[str]) -> int:
    """Write the tables in the one file named in ``argv``; the exit status."""
    (path,) = map(Path, argv)
    path.write_text(with_tables(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
