"""What a list is asked for: how many, behind which, and a few words more.

Owns the checks of these parameters. Pure; on the event loop.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from openai_api.errors import ApiError, invalid_value

MAX_LIMIT, DEFAULT_LIMIT = 10_000, 20


@dataclass(frozen=True, slots=True)
class PageQuery:
    """``after`` is an id, ``None`` for the beginning."""

    limit: int
    after: str | None
    others: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """Another parameter, ``None`` if it is not there."""
        return self.others.get(name)


def page_query(request: Request, *others: str) -> PageQuery:
    """Of the URL. Raises: ApiError 400, a parameter is unknown or wrong."""
    given = dict(request.query_params)
    for name in given:
        if name not in ("limit", "after", *others):
            allowed = ", ".join(("limit", "after", *others))
            raise ApiError(400, f"Unknown parameter; allowed are {allowed}.", code="unknown_parameter", param=name)
    limit = given.pop("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"\d{1,6}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise invalid_value("limit", f"'limit' must be from 1 to {MAX_LIMIT}.")
    if given.get("order", "asc") not in ("asc", "desc"):
        raise invalid_value("order", "'order' must be asc or desc.")
    return PageQuery(int(limit), given.pop("after", None), given)
