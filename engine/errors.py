"""The exceptions of the ``engine`` package.

::

    EngineError
     +-- RequestError         the request itself cannot be served; also a ValueError, names the field
     |    +-- ContextLengthError   its prompt leaves no room for an answer
     |    +-- GrammarError         what its answer must be cannot be promised: a schema, a grammar
     +-- QueueFullError       too much waits already: come back in ``retry_after_s``
     +-- QueueTimeoutError    waited longer in the queue than allowed
     +-- DeadlineError        ran longer than the caller allows, who alone raises it
     +-- EngineNotReadyError  loading, draining or dead
     +-- StepError            the step of this request failed inside the engine
          +-- GrammarStepError     by its own grammar's fault; also a GrammarError
"""


class EngineError(Exception):
    """Base of every error the engine delivers to a request."""


class RequestError(EngineError, ValueError):
    """The request cannot be served as it is. ``param`` names the field, ``code`` is a stable word for programs."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextLengthError(RequestError):
    """The prompt leaves no room for an answer.

    Clients tell this error by its words: litellm by "this model's maximum context length is", LangChain by "prompt is
    too long". ``num_tokens`` is a count, or words for one.
    """

    def __init__(self, max_model_len: int, num_tokens: int | str, *, param: str = "prompt") -> None:
        super().__init__(
            f"This model's maximum context length is {max_model_len} tokens; the prompt is too long: it has "
            f"{num_tokens} tokens, and an answer needs room too.",
            param=param,
            code="context_length_exceeded",
        )


class GrammarError(RequestError):
    """What an answer must be cannot be promised. The code is "invalid_json_schema" or "invalid_grammar"."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_grammar") -> None:
        super().__init__(message, param=param, code=code)


class QueueFullError(EngineError):
    """The waiting queue is full. ``retry_after_s`` is 1 to 120."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueTimeoutError(EngineError):
    """No place became free in time."""


class DeadlineError(EngineError):
    """The request ran longer than its deadline allows."""


class EngineNotReadyError(EngineError):
    """The engine takes no requests now: it is loading, draining or dead."""


class StepError(EngineError):
    """The model step of this request failed; its neighbours are not affected, unless the whole engine has failed."""


class GrammarStepError(StepError, GrammarError):
    """The answer cannot go on as its grammar asks: one that could only be told while it is followed."""
