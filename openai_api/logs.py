"""Log records: one JSON object a line, or a readable line when a person watches.

Owns the form of a record, which is an event name with a few plain fields, and how often the same
fault is told; records of libraries (uvicorn's warnings) go the same way. Never a prompt, an answer
or a key. Any thread.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from traceback import walk_tb

LOGGER_NAME = "openai_api"
REPEAT_INTERVAL_S = 10.0


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


class RepeatFilter(logging.Filter):
    """Lets the first record of a fault through, then one in ``interval_s`` seconds that says how
    many were left out; mutable.

    A fault is a record of level warning or above, told from others by its logger, its message
    without the arguments, and the place of the error. What a client can cause again and again must
    not fill a disk.
    """

    MAX_FAULTS = 256

    def __init__(self, *, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._told: dict[str, _Told] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written; it gets a field ``left_out`` if others were not."""
        if record.levelno < logging.WARNING:
            return True
        with self._lock:
            return self._is_due(record)

    def _is_due(self, record: logging.LogRecord) -> bool:
        fault, now_s = _fault_of(record), self._clock()
        told = self._told.get(fault)
        if told is not None and now_s - told.at_s < self._interval_s:
            told.num_left_out += 1
            return False
        if told is None and len(self._told) >= self.MAX_FAULTS:
            self._told.clear()
        elif told is not None and told.num_left_out:
            record.fields = {**getattr(record, "fields", {}), "left_out": told.num_left_out}
        self._told[fault] = _Told(now_s)
        return True


@dataclass(slots=True)
class _Told:
    """When a fault was told last, on the clock of the filter, and how often it was not, since then."""

    at_s: float
    num_left_out: int = 0


def _fault_of(record: logging.LogRecord) -> str:
    """The first line alone: asyncio's message goes on with the state of its objects."""
    fields: dict[str, object] = getattr(record, "fields", {})
    error = record.exc_info[1] if record.exc_info else None
    place = fields.get("at") if error is None else where_it_failed(error)
    return "\n".join((record.name, str(record.msg).partition("\n")[0], str(place)))


def configure_logging(level: str) -> None:
    """Send all records of this process to stderr, from ``level`` (``debug`` to ``error``) on.

    Called once, by the program, never on import.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepeatFilter(interval_s=REPEAT_INTERVAL_S))
    handler.setFormatter(EventFormatter(as_json=not sys.stderr.isatty()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Its news of starting and stopping are ours too; its warnings are not.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
