"""The numeric sampling fields of request bodies, made from the engine's table of settings.

Owns the way from a ``Setting`` to a field that pydantic checks and ``/openapi.json`` describes. Names no
setting. Pure; any thread may call it.
"""

from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import Field, create_model

from engine.sampling_params import Setting
from openai_api.request.field_support import BODY_SETTINGS
from openai_api.request.strict_model import StrictModel

M = TypeVar("M", bound=StrictModel)


def in_range(setting: Setting) -> tuple[object, ...]:
    """What pydantic checks of a setting's value; the setting itself words the error (see
    ``validation``).
    """
    low = Gt(setting.low) if setting.open_low else Ge(setting.low)
    return low, Le(setting.high), setting


def _with_settings(model: type[M]) -> type[M]:
    """``model`` with a field for each of ``BODY_SETTINGS``."""
    fields: dict[str, Any] = {
        name: (
            Annotated.__class_getitem__((setting.kind | None, *in_range(setting))),  # type: ignore[attr-defined]
            Field(default=None, description=setting.does),
        )
        for name, setting in BODY_SETTINGS.items()
    }
    return create_model(model.__name__, __base__=model, __module__=model.__module__, **fields)


@_with_settings
class SettingFields(StrictModel):
    """The settings of ``engine.sampling_params.SETTINGS`` under their own names, ``None`` where
    nothing is asked for.
    """
