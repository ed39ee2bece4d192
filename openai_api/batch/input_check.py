"""Whether an uploaded file is a batch: every line a request of its endpoint, every ``custom_id`` once.

Owns the rules about the file as a whole; ``line_task`` has those of one line, and the body of a
request is checked when its turn comes. Runs in a worker thread.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from openai_api.batch.batch_store import LineError
from openai_api.batch.line_task import LineTask
from openai_api.batch.row import BadRow
from openai_api.batch.sources import JsonLines

MAX_ROWS = 100_000
MAX_ERRORS = 20  # told of one file


def check_input(path: Path, endpoint: str) -> tuple[int, list[LineError]]:
    """How many rows the file has, and what is wrong with it, at most ``MAX_ERRORS`` things.

    Raises:
        OSError: it cannot be read.
    """
    errors: list[LineError] = []
    num_rows = 0
    for num_rows, error in enumerate(_checked(path, endpoint), 1):
        if error is not None:
            errors.append(error)
        if num_rows > MAX_ROWS:
            errors.append(LineError("too_many_rows", f"A batch has at most {MAX_ROWS} rows; send several."))
        if len(errors) >= MAX_ERRORS or num_rows > MAX_ROWS:
            break
    if num_rows == 0:
        errors.append(LineError("empty_file", "The file has no rows."))
    return num_rows, errors


def _checked(path: Path, endpoint: str) -> Iterator[LineError | None]:
    task, seen = LineTask([endpoint]), set[int]()
    with closing(JsonLines(path)) as source:
        for line in source.rows():
            number = source.line_number
            request = line if isinstance(line, BadRow) else task.request(line)
            if isinstance(request, BadRow):
                yield LineError("invalid_line", request.why, line=number)
                continue
            assert not isinstance(line, BadRow)
            custom_id = hash(line["custom_id"])  # of 64 bits: a hundred thousand ids are as good as surely apart
            if custom_id in seen:
                yield LineError("duplicate_custom_id", "This 'custom_id' was in an earlier line.", "custom_id", number)
                continue
            seen.add(custom_id)
            yield None
