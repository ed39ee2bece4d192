"""Which requests a step ended with an error: the one place where whatever is raised for a request is caught.

Knows nothing of models or queues. Engine thread only.
"""

from collections import abc
from contextlib import contextmanager

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

    @contextmanager
    def of(self, request_id: str) -> abc.Iterator[None]:
        """Whatever is raised inside ends this request and nobody else's; its cause is kept."""
        try:
            yield
        except StepError as error:
            self.errors.setdefault(request_id, error)
        except Exception as error:
            failure = StepError("The model step of this request failed.")
            failure.__cause__ = error
            self.errors.setdefault(request_id, failure)
