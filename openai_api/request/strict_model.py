"""The base of every request body.

Owns strictness: no unknown names, no other types, no more than ``MAX_FIELDS`` fields. A value that
asks for nothing is as good as left out. Knows no field. Pure; any thread may call it.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from openai_api.request.neutral_values import Values, asks_for_nothing

MAX_FIELDS = 256


class StrictModel(BaseModel):
    """``neutral``: by name, the values that ask for nothing; ``null`` is one under any other name
    than the model's own, which say themselves what they make of it.
    """

    # Built when the first body of its kind comes: a start would pay for every API that nobody asks.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    neutral: ClassVar[Mapping[str, Values]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        if len(data) > MAX_FIELDS:
            # A million unknown names would each become an error record.
            raise PydanticCustomError("too_many_fields", "at most {most} fields", {"most": MAX_FIELDS})
        return {name: value for name, value in data.items() if not cls._is_neutral(name, value)}

    @classmethod
    def _is_neutral(cls, name: str, value: object) -> bool:
        if value is None:
            return name not in cls.model_fields
        return name in cls.neutral and asks_for_nothing(value, cls.neutral[name])
