"""The numeric sampling fields of request bodies, made from the engine's table of settings.

Owns the way from a ``Setting`` to a field that pydantic checks and ``/openapi.json`` describes. Names no
setting. Pure; any thread may call it.
"""

from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, Field, create_model

from engine.sampling_params import MAX_INTEGER, Setting
from openai_api.request.field_support import BODY_SETTINGS, OTHER_NAMES
from openai_api.request.strict_model import StrictModel

M = TypeVar("M", bound=StrictModel)


def whole_number(value: object) -> object:
    """100.0 is 100: JavaScript and some serialisers write whole numbers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole_numbers(value: object) -> object:
    """The same for each of a list."""
    if isinstance(value, list) and float in set(map(type, value)):
        return [whole_number(each) for each in value]
    return value


def whole_count(value: object) -> object:
    """A whole number; beyond ``MAX_INTEGER`` all counts mean the same, as 2**53 - 1 of JavaScript."""
    count = whole_number(value)
    return min(count, MAX_INTEGER) if isinstance(count, int) and not isinstance(count, bool) else count


def in_range(setting: Setting) -> tuple[object, ...]:
    """What pydantic checks of a setting's value; the setting itself words the error (see
    ``validation``).
    """
    low = Gt(setting.low) if setting.open_low else Ge(setting.low)
    read = whole_count if setting.high == MAX_INTEGER else whole_number
    kinds = (BeforeValidator(read),) if setting.kind is int else ()
    return low, Le(setting.high), setting, *kinds


def _with_settings(model: type[M]) -> type[M]:
    """``model`` with a field for each of ``BODY_SETTINGS``, and for each of their other names."""
    settings = {**BODY_SETTINGS, **{other: BODY_SETTINGS[name] for other, name in OTHER_NAMES.items()}}
    fields: dict[str, Any] = {
        name: (
            Annotated.__class_getitem__((setting.kind | None, *in_range(setting))),  # type: ignore[attr-defined]
            Field(default=None, description=setting.does),
        )
        for name, setting in settings.items()
    }
    return create_model(model.__name__, __base__=model, __module__=model.__module__, **fields)


@_with_settings
class SettingFields(StrictModel):
    """The settings of ``engine.sampling_params.SETTINGS`` under their own names, ``None`` where
    nothing is asked for.
    """
