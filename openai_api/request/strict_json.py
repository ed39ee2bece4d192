"""JSON from strangers: only what RFC 8259 calls interoperable, as plain Python values.

Owns what is refused beyond what ``json.loads`` refuses: other encodings than UTF-8, NaN and
infinities also in the form 1e400, names that occur twice in one object, lone surrogates, nesting
below ``max_depth``. Knows no field. Pure; any thread may call it.
"""

import json
import math
from typing import NoReturn

from openai_api.errors import ApiError, invalid_value
from openai_api.request.long_json import LongJson, TooManyValuesError

# A shorter text takes json.loads at most 5 ms.
_LONG_CHARS = 64 * 1024


class NotJsonError(Exception):
    """A text is no JSON that is taken here; says why, and where, never what."""


def parse_json(body: bytes | bytearray, *, max_depth: int, max_values: int) -> object:
    """The value of ``body``, which may hold ``max_values`` values (64 KiB may hold any number).

    Raises:
        ApiError: 400 ``invalid_json``; it says where, never what.
    """
    try:
        return json_value(body.decode("utf-8"), max_depth=max_depth, max_values=max_values)
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    except TooManyValuesError:
        raise invalid_value(None, f"The request body has more than {max_values} values.") from None
    except NotJsonError as error:
        why = str(error)
    raise ApiError(400, f"The request body is not valid JSON: {why}.", code="invalid_json")


def json_value(text: str, *, max_depth: int, max_values: int) -> object:
    """The value of ``text``, by the same rules.

    Raises:
        NotJsonError: it is none.
        TooManyValuesError: it holds more than ``max_values`` values.
    """
    try:
        value = _long(text, max_depth, max_values) if len(text) > _LONG_CHARS else _short(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"syntax error at character {error.pos}") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except TooManyValuesError:
        raise
    except ValueError:  # an integer of more than 4,300 digits
        raise NotJsonError("a number is too long") from None
    _check(value, max_depth, max_depth)
    return value


def _short(text: str) -> object:
    return json.loads(text, object_pairs_hook=_unique_names, parse_float=_finite_float, parse_constant=_refuse_constant)


def _long(text: str, max_depth: int, max_values: int) -> object:
    return LongJson(
        text,
        max_depth=max_depth,
        max_values=max_values,
        object_pairs_hook=_unique_names,
        parse_float=_finite_float,
        parse_constant=_refuse_constant,
    ).read()


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    as_dict = dict(pairs)
    if len(as_dict) != len(pairs):
        raise NotJsonError("a name occurs twice in one object")
    return as_dict


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise NotJsonError("a number is too large")
    return value


def _refuse_constant(_name: str) -> NoReturn:
    raise NotJsonError("NaN and Infinity are not JSON")


def _check(value: object, depth_left: int, max_depth: int) -> None:
    """Walk the containers, at most ``max_depth`` deep, and check every string."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        _check_depth(depth_left, max_depth)
        for name, item in value.items():
            _check_text(name)
            _check(item, depth_left - 1, max_depth)
    elif isinstance(value, list):
        _check_depth(depth_left, max_depth)
        for item in value:
            if not isinstance(item, int):  # long lists are token ids
                _check(item, depth_left - 1, max_depth)


def _check_depth(depth_left: int, max_depth: int) -> None:
    if depth_left == 0:
        raise _too_deep(max_depth)


def _check_text(text: str) -> None:
    """A lone surrogate can come from a \\u escape; no text with one can be tokenised, hashed or
    sent back.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise NotJsonError("a string has a lone surrogate") from None


def _too_deep(max_depth: int) -> NotJsonError:
    return NotJsonError(f"it is nested deeper than {max_depth} levels")
