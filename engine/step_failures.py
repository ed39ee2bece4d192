"""Which requests a step ended with an error: the one place where whatever is raised for a request is caught.

Knows nothing of models or queues. Engine thread only.
"""

from dataclasses import dataclass
from types import TracebackType

from engine.errors import StepError


class StepFailures:
    """The errors of one step by request id, the first of each request. Mutable.

    Worked example, for the part of a step that concerns one request::

        with failures.of(request_id):
            detokenizer.push(token_id)
    """

    def __init__(self) -> None:
        self.errors: dict[str, StepError] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self.errors

    def of(self, request_id: str) -> "_Guard":
        """Whatever is raised inside ends this request and nobody else's; its cause is kept."""
        return _Guard(self.errors, request_id)


@dataclass(slots=True)
class _Guard:
    """A class, since each sequence passes several a step and a generator costs three times as much."""

    errors: dict[str, StepError]
    request_id: str

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        if not isinstance(error, StepError):
            cause, error = error, StepError("The model step of this request failed.")
            error.__cause__ = cause
        self.errors.setdefault(self.request_id, error)
        return True
