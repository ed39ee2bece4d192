"""Sampling defaults that a checkpoint brings in its ``generation_config.json``.

Owns which of its values are believed: one that no request may have is told when the model is
loaded and passed over, so that a client never gets an error for what it did not write. Runs on the
engine thread, once.
"""

import logging
from collections.abc import Mapping

from engine.sampling_params import SETTINGS, SamplingParamsError, Setting

log = logging.getLogger("gemma3")


def default_sampling(generation_config: Mapping[str, object]) -> dict[str, float]:
    """``temperature``, ``top_k`` and ``top_p`` where they are given, not ``null``, and allowed."""
    found: dict[str, float] = {}
    for name, setting in SETTINGS.items():
        given = generation_config.get(name) if setting.from_checkpoint else None
        if given is None:
            continue
        value = _number(given, setting)
        if value is None:
            log.warning(
                "generation_config.json: %s=%.60r is passed over, the default is %s: %s is allowed.",
                name,
                given,
                setting.default,
                setting.allowed,
            )
        else:
            found[name] = value
    return found


def _number(given: object, setting: Setting) -> float | None:
    """A value that a request may have, too; of an integer also 64.0, as some tools write it."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    try:
        value = setting.kind(given)
        setting.check("", value)
    except (SamplingParamsError, ValueError, OverflowError):  # NaN, infinite or huge integers
        return None
    return value if value == given else None
