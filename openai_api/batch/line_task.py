"""OpenAI's batch lines: ``custom_id``, ``method``, ``url`` and ``body`` in, their answers out.

Owns the form of a line and of the line that answers it. Knows nothing of files or of the engine.
Pure.
"""

from collections.abc import Collection
from uuid import uuid4

from openai_api.batch.row import BadRow, Columns, Record, RowOutcome, RowRequest

MAX_CUSTOM_ID_CHARS = 512
_MEMBERS = ("custom_id", "method", "url", "body")


class LineTask:
    """Each line asks for itself. ``urls`` are the endpoints that can be asked."""

    columns: tuple[str, ...] = ()

    def __init__(self, urls: Collection[str]) -> None:
        self._urls = urls

    def request(self, line: Columns) -> RowRequest | BadRow:
        """What ``line`` asks, or what is wrong with it."""
        for name in line:
            if name not in _MEMBERS:
                return BadRow(f"A line has {', '.join(_MEMBERS)} and nothing else.")
        custom_id = line.get("custom_id")
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID_CHARS:
            return BadRow(f"'custom_id' must be a string of 1 to {MAX_CUSTOM_ID_CHARS} characters.")
        if line.get("method", "POST") != "POST":
            return BadRow("'method' must be POST.")
        url = line.get("url")
        if url not in self._urls:
            return BadRow(f"'url' must be one of {', '.join(sorted(self._urls))}.")
        assert isinstance(url, str)
        return RowRequest(url, line.get("body"))

    def record(self, line: Columns | BadRow, outcome: RowOutcome | BadRow) -> Record:
        """OpenAI's line of an answer: ``response`` if the request was one, else ``error``."""
        custom_id = None if isinstance(line, BadRow) else line.get("custom_id")
        response, error = None, None
        if isinstance(outcome, BadRow):
            error = {"code": "invalid_line", "message": outcome.why}
        else:
            response = {
                "status_code": outcome.status,
                "request_id": f"req_{uuid4().hex}",
                "body": outcome.body,
            }
        members = {"id": f"batch_req_{uuid4().hex}", "custom_id": custom_id, "response": response, "error": error}
        if isinstance(outcome, BadRow):
            return Record(members, is_failed=True)
        return Record(members, is_failed=outcome.is_failed, num_tokens=outcome.num_tokens)
