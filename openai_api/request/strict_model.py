"""The base of every request body.

Owns strictness: no unknown names, no other types, no more than ``MAX_FIELDS`` fields, and fields that are
refused unless they ask for nothing. Knows no field. Pure; any thread may call it.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

MAX_FIELDS = 256


class StrictModel(BaseModel):
    """``refused``: fields that OpenAI has and this server has not; with a neutral value they are as
    good as absent.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    refused: ClassVar[Mapping[str, tuple[object, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        if len(data) > MAX_FIELDS:
            # A million unknown names would each become an error record.
            raise PydanticCustomError("too_many_fields", "at most {most} fields", {"most": MAX_FIELDS})
        return {name: value for name, value in data.items() if not _is_neutral(value, cls.refused.get(name, ()))}


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    """Equal and of the same type, as ``True == 1``."""
    return any(type(value) is type(each) and value == each for each in neutral)
