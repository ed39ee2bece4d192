"""Log records: one JSON object a line, or a readable line when a person watches.

Owns the form of a record, which is an event name with a few plain fields; records of libraries
(uvicorn's warnings) go the same way. Never a prompt, an answer or a key. Any thread.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from traceback import walk_tb

LOGGER_NAME = "openai_api"


def log_event(level: int, event: str, fields: Mapping[str, object]) -> None:
    """One record: ``level`` is one of ``logging``'s, ``fields`` become members of the JSON line.

    Any thread.
    """
    logging.getLogger(LOGGER_NAME).log(level, event, extra={"fields": dict(fields)})


def where_it_failed(error: BaseException) -> dict[str, object]:
    """The type and the code lines of an error, but not its message, which may quote a prompt."""
    frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return {"error": type(error).__name__, "at": frames[-5:]}


class EventFormatter(logging.Formatter):
    """One line a record: JSON for machines, else words for a person.

    Times are UTC, in milliseconds.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line break; an exception is told by its type and lines of code only."""
        fields: dict[str, object] = getattr(record, "fields", {})
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields = {**fields, **where_it_failed(error)}
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        level, message = record.levelname.lower(), record.getMessage().strip()
        if self.as_json:
            return json.dumps({"time": now, "level": level, "event": message, **fields}, default=str)
        details = " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{now[11:19]} {level:7} {message} {details}".rstrip()


def configure_logging(level: str) -> None:
    """Send all records of this process to stderr, from ``level`` (``debug`` to ``error``) on.

    Called once, by the program, never on import.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(as_json=not sys.stderr.isatty()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Its news of starting and stopping are ours too; its warnings are not.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
