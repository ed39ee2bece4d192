"""The names that clients may have for the one model.

Owns which names are served and what a name may be. Knows no endpoint. Pure; any thread may call it.
"""

import argparse
from collections.abc import Sequence

from openai_api.errors import ApiError, invalid_value

MAX_NAME_CHARS = 256
LATEST = ":latest"
"""The tag that Ollama's clients put behind a name without one; it names the same model."""


def parse_model_name(text: str) -> str:
    """A name from the command line, such as ``gpt-4o-mini`` or ``OWNER/NAME``.

    Raises:
        argparse.ArgumentTypeError: empty, too long, or with characters that cannot be printed.
    """
    name = text.strip()
    if not (1 <= len(name) <= MAX_NAME_CHARS and name.isprintable()):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a name of 1 to {MAX_NAME_CHARS} printable characters")
    return name


def served_name(name: str | None, names: Sequence[str], *, serves_any: bool) -> str:
    """The name that an answer carries: the one asked for, or the first of ``names`` where none is.
    ``NAME:latest`` and ``NAME`` are one model, under that of both that is among ``names``.

    Raises:
        ApiError: 404, no such model; without the name, which is the client's text. 400, a name too
            long to be repeated in every chunk.
    """
    if name is None:
        return names[0]
    if name in names:
        return name
    if (other := _other_form(name)) in names:
        return other
    if not serves_any:
        listed = ", ".join(f"'{each}'" for each in names)
        message = f"There is no such model; this server has {listed}."
        raise ApiError(404, message, code="model_not_found", param="model")
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise invalid_value("model", f"Invalid value for 'model': expected 1 to {MAX_NAME_CHARS} characters.")
    return name


def with_tag(name: str) -> str:
    """As Ollama lists models: ``NAME:latest`` where the name has no tag."""
    return name if ":" in name.rpartition("/")[2] else name + LATEST


def _other_form(name: str) -> str:
    return name.removesuffix(LATEST) if name.endswith(LATEST) else name + LATEST
