"""Sets of values that ask for nothing, and how a client's value is compared with them.

Owns what counts as equal: 1.0 is 1, ``true`` is not, and an object asks for what its members ask
for. Knows no name of a field. Pure; any thread may call it.
"""

import json

Values = tuple[object, ...]

ANYTHING: Values = (object(),)
"""No value of such a name could change an answer of this server."""
ONLY_NULL: Values = ()

OFF: Values = (False,)
ON: Values = (True,)
ZERO: Values = (0,)
ONE: Values = (1,)
NO_TEXT: Values = ("",)
NO_LIST: Values = ([],)
NO_OBJECT: Values = ({},)


def any_value(names: str) -> dict[str, Values]:
    """``ANYTHING`` for each of ``names``, which are set apart by spaces."""
    return dict.fromkeys(names.split(), ANYTHING)


def asks_for_nothing(value: object, values: Values) -> bool:
    """Whether ``value`` is one of ``values``; 1.0 is 1, but ``true`` is not.

    An object is one too if each of its members alone is, or is ``null``:
    ``{"effort": "none", "summary": null}``. ``{}`` is one where any object is.
    """
    if values is ANYTHING:
        return True
    if isinstance(value, dict):
        objects = [each for each in values if isinstance(each, dict)]
        return bool(objects) and all(
            member is None or any(_equal({name: member}, each) for each in objects) for name, member in value.items()
        )
    return any(_equal(value, each) for each in values)


def _equal(value: object, other: object) -> bool:
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_equal(value[name], other[name]) for name in value)
    return isinstance(value, bool) is isinstance(other, bool) and value == other


def in_words(values: Values) -> str:
    """``null, 0, -1`` as a client writes them."""
    return "anything" if values is ANYTHING else ", ".join(map(json.dumps, (None, *values)))
