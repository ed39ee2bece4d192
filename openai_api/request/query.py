"""The parameters of a URL behind its path: which a route has, and what may stand in each.

Owns the one place where they are read: what a handler can ask for is what its route declares, and so
what the OpenAPI document has. Knows no route. Pure; on the event loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from openai_api.errors import ApiError, invalid_value


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameter:
    """A text where there are neither ``choices`` nor a ``maximum``.

    Attributes:
        about: a sentence for the OpenAPI document.
        default: what is read where nothing is given; ``None`` if that has a meaning of its own.
        choices: the values that may be given.
        maximum: of an integer from 1.
    """

    name: str
    about: str
    default: int | str | None = None
    choices: tuple[str, ...] = ()
    maximum: int | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """As OpenAPI has it."""
        schema: dict[str, Any] = {"type": "string"}
        if self.maximum is not None:
            schema = {"type": "integer", "minimum": 1, "maximum": self.maximum}
        if self.choices:
            schema["enum"] = list(self.choices)
        return schema if self.default is None else {**schema, "default": self.default}

    def read(self, text: str) -> int | str:
        """Raises: ApiError 400, ``text`` may not stand here."""
        if self.maximum is not None:
            is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(self.maximum))
            if not (is_number and 1 <= int(text) <= self.maximum):
                raise invalid_value(self.name, f"'{self.name}' must be an integer from 1 to {self.maximum}.")
            return int(text)
        if self.choices and text not in self.choices:
            raise invalid_value(self.name, f"'{self.name}' must be {' or '.join(self.choices)}.")
        return text


def limit_of(default: int, maximum: int) -> QueryParameter:
    """How many entries a page of a list has."""
    return QueryParameter(name="limit", about="At most so many entries.", default=default, maximum=maximum)


def order_of(default: str) -> QueryParameter:
    """From which end a list is told."""
    about = "By the time at which they came about."
    return QueryParameter(name="order", about=about, default=default, choices=("asc", "desc"))


AFTER = QueryParameter(name="after", about="The id of the entry behind which the page begins.")


def query_of(request: Request) -> Mapping[str, Any]:
    """The value of each parameter that the route of ``request`` declares: an integer or a text.

    Others are nobody's business here.

    Raises:
        ApiError: 400, a value may not be.
    """
    given = request.query_params
    declared: tuple[QueryParameter, ...] = request.scope["route"].query
    return {each.name: each.read(given[each.name]) if each.name in given else each.default for each in declared}


def refuse_unknown(request: Request) -> None:
    """Raises: ApiError 400, a parameter is given that the route of ``request`` does not declare."""
    declared = [each.name for each in request.scope["route"].query]
    for name in request.query_params:
        if name not in declared:
            message = f"Unknown parameter; allowed are {', '.join(declared)}."
            raise ApiError(400, message, code="unknown_parameter", param=name)
