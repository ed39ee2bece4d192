"""One row of the table of endpoints, and the statuses that rows have in common.

Owns what a row can say. Knows no endpoint. Constants, so any thread may read them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from openai_api.request.query import QueryParameter

DESCRIPTIONS: Mapping[int, str] = {
    400: "The request is wrong: `error.param` names the field.",
    401: "No valid API key.",
    403: "Host or Origin is not allowed.",
    404: "No such model or path.",
    408: "The body came too slowly.",
    409: "It is too late for that.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "The queue is full: come back after `Retry-After`.",
    431: "The headers are too large.",
    500: "The server failed on this request.",
    503: "Loading, draining, or waited too long in the queue.",
    504: "The request ran longer than its deadline.",
}
ANY = (403, 431, 500, 503)
MODEL = (401, *ANY)
BODY = (400, 404, 408, 413, 415, *MODEL)
GENERATION = (429, 504, *BODY)
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        verb: the method, where it is not ``POST`` for an endpoint with a body and else ``GET``.
        streams: the media type of the events that the answer may also be.
        text: the media type of an answer that is not JSON.
        anthropic_answer: the answer to a client of Anthropic's, where that is another.
        parameters: those of the path.
        query: those behind it; the handler can read no others.
    """

    path: str
    serve: Callable[[Request], Awaitable[Response]]
    errors: tuple[int, ...] = ANY
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    streams: str = ""
    text: str = ""
    verb: str = ""
    parameters: tuple[str, ...] = ()
    query: tuple[QueryParameter, ...] = ()
    anthropic_answer: type[BaseModel] | None = None

    @property
    def method(self) -> str:
        """The HTTP method; ``GET`` stands for HEAD too."""
        return self.verb or ("GET" if self.body is None else "POST")
