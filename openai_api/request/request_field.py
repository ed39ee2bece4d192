"""A row of the tables of request fields: a name, and what this server does with it.

Owns the three ways to support a field. Knows no field. Constants, so any thread may read them.
"""

from dataclasses import dataclass
from enum import StrEnum

from engine.sampling_params import Setting


class Support(StrEnum):
    """What becomes of a field: it is obeyed, it cannot matter, or it is a 400."""

    EXACT = "exact"  # does what its description says
    NO_EFFECT = "no_effect"  # accepted; could not change the answer
    REFUSED = "refused"  # 400 unsupported_parameter


@dataclass(frozen=True, slots=True)
class RequestField:
    """A row; ``name`` is a path such as ``messages[].role``."""

    name: str
    support: Support
    note: str


def exact(name: str, note: str) -> RequestField:
    """A row of a field that does what ``note`` says."""
    return RequestField(name, Support.EXACT, note)


def no_effect(name: str, note: str) -> RequestField:
    """A row of a field that is taken with what ``note`` says, and changes nothing."""
    return RequestField(name, Support.NO_EFFECT, note)


def refused(name: str, note: str) -> RequestField:
    """A row of a field that is a 400 unless it asks for nothing; ``note`` says why."""
    return RequestField(name, Support.REFUSED, note)


def setting_row(name: str, setting: Setting) -> RequestField:
    """The row of a setting: its range, its default and what it does."""
    default = "" if setting.default is None else f", default {setting.default:g}"
    checkpoints = " or the checkpoint's" if setting.from_checkpoint else ""
    return exact(name, f"{setting.allowed}{default}{checkpoints}: {setting.does}")
