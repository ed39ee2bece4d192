"""The body of ``POST /v1/systemone``, TypeSafe's protocol: a state, and questions by name.

Owns what a client may write; the notes on it are in ``decision_notes``. Sources: the clients that speak it, ``typesafe-sdk`` 0.7,
pydantic-ai's ``SystemOneModel`` and ``gemmadecision`` 0.2. Knows no engine. Immutable; large bodies are
parsed in a worker thread.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from openai_api.request.decision_notes import MAX_QUESTIONS, MAX_TEMPERATURE
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.neutral_values import NO_OBJECT, Values
from openai_api.request.strict_model import StrictModel


class SystemOneQuestion(StrictModel):
    """``criteria`` are the options: an object of a choice, an array of a score, ``true`` and ``false`` of a noul."""

    type: Literal["noul", "choice", "score"]
    instructions: Any = None
    criteria: dict[str, Any] | list[Any] | None = None


class SystemOneRequest(StrictModel):
    """Anything that is no string is read as JSON."""

    neutral: ClassVar[Mapping[str, Values]] = {**IN_ANY_REQUEST, "assets": NO_OBJECT}

    model: str | None = None
    state: Any
    questions: Annotated[dict[str, SystemOneQuestion], Field(min_length=1, max_length=MAX_QUESTIONS)]
    temperature: Annotated[float | None, Field(ge=0, le=MAX_TEMPERATURE)] = None
