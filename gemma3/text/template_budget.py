"""How much one rendering of a chat template may do: steps, and characters at a time.

Owns the limits and what each operation of a template may grow to, told before it is done. A template is
the operator's file, but it works on what clients send: a loop in a loop, a text doubled in each turn. Steps
are counted, not seconds, so the same messages are refused on every machine, and no thread outlives its
request. One object per rendering, used by the thread that renders.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_STEPS = 1 << 19  # about a second of nothing but empty loops
MAX_CHARS = 1 << 24
_MAX_ITEMS = 1 << 18
_MAX_WIDTH = 1 << 12
_MAX_BITS = 1 << 12
_CHARS_PER_STEP = 1 << 8
# An item of a list costs as much as so many characters.
ITEM_SIZE = 16
# A width of more than four digits, or one that comes from an argument.
_WIDE_FORMAT = re.compile(r"\d{5}|%[-+ #0]*\*|%[^%]*\.\*|:[^{}]*\{")


class TemplateLimitError(Exception):
    """A rendering went on for too long or grew too large."""


class Budget:
    """What is left for one rendering."""

    def __init__(self) -> None:
        self._steps, self._chars = MAX_STEPS, MAX_CHARS

    def step(self, num_chars: int = 0) -> None:
        """One turn of a loop, or one operation on ``num_chars``.

        Raises:
            TemplateLimitError: it was one too many.
        """
        self._steps -= 1 + num_chars // _CHARS_PER_STEP
        if self._steps < 0:
            raise TemplateLimitError(f"takes more than {MAX_STEPS:,} steps")

    def write(self, num_chars: int) -> None:
        """Raises: TemplateLimitError, more was written than a rendering may."""
        self.step(num_chars)
        self._chars -= num_chars
        if self._chars < 0:
            raise TemplateLimitError(f"writes more than {MAX_CHARS:,} characters")

    def make(self, size: int) -> None:
        """Raises: TemplateLimitError, an operation would make a value of ``size`` characters or items."""
        self.step(max(size, 0))
        if size > MAX_CHARS:
            raise TemplateLimitError(f"makes a value of more than {MAX_CHARS:,} characters or items")


def text_size(value: object) -> int:
    """About how many characters ``str(value)`` has; counting ends where it is too many.

    A list that holds itself twice, forty times over, would write 2 ** 40 items.
    """
    size, num_items, left = 0, 0, [value]
    while left and size <= MAX_CHARS:
        each = left.pop()
        num_items += 1
        size += len(each) if isinstance(each, str) else ITEM_SIZE
        if isinstance(each, Mapping):
            left += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            left += each
        if num_items > _MAX_ITEMS:
            return MAX_CHARS + 1
    return size


def operator_size(operator: str, left: object, right: object) -> int:
    """What ``left operator right`` grows to, at most."""
    if operator == "%" and isinstance(left, str):
        return _format_size(left, right)
    if operator == "**":
        return _power_size(left, right)
    if operator == "*":
        times = [max(value, 0) for value in (left, right) if isinstance(value, int)]
        sizes = [_plain_size(value) for value in (left, right) if isinstance(value, str | list | tuple)]
        return times[0] * sizes[0] if times and sizes else 1
    return _plain_size(left) + _plain_size(right)


def call_size(name: str, values: Sequence[object], options: Mapping[str, object]) -> int:
    """What the filter or the method ``name`` makes of ``values``, the first of which is its subject.

    Raises:
        TemplateLimitError: a width or a count of fill characters that no template needs.
    """
    subject, *rest = values
    rest = [*rest, *options.values()]
    size = _SIZES.get(name, _plain_size)(subject, rest)
    if name in _PADDED and any(isinstance(value, int) and value > _MAX_WIDTH for value in rest):
        raise TemplateLimitError(f"fills up to more than {_MAX_WIDTH:,} characters")
    return size


def check_format(text: str) -> None:
    """Raises: TemplateLimitError, ``text`` is a format with a width that no template needs."""
    if _WIDE_FORMAT.search(text):
        raise TemplateLimitError("fills up to a width that is not allowed")


def _format_size(text: str, arguments: object) -> int:
    check_format(text)
    return len(text) * 16 + text_size(arguments)


def _power_size(base: object, exponent: object) -> int:
    if not isinstance(base, int) or not isinstance(exponent, int):
        return 1
    if base.bit_length() * exponent > _MAX_BITS:
        raise TemplateLimitError(f"computes a number of more than {_MAX_BITS:,} bits")
    return 1


def _plain_size(subject: object, rest: Sequence[object] = ()) -> int:
    if isinstance(subject, str):
        return len(subject)
    return len(subject) * ITEM_SIZE if isinstance(subject, list | tuple | range | Mapping) else 1


def _no_size(subject: object, rest: Sequence[object]) -> int:
    return 1


def _whole_size(subject: object, rest: Sequence[object]) -> int:
    return text_size(subject)


def _replaced_size(subject: object, rest: Sequence[object]) -> int:
    text, (old, new) = str(subject), [str(value) for value in rest[:2]] or ("", "")
    return len(text) + text.count(old) * len(new)


def _joined_size(subject: object, rest: Sequence[object]) -> int:
    """Of the method the subject is what stands between, of the filter it is the items."""
    values = [subject, *rest[:1]]
    items = next((value for value in values if isinstance(value, list | tuple | Mapping)), ())
    between = sum(len(value) for value in values if isinstance(value, str))
    return text_size(items) + between * len(items)


def _indented_size(subject: object, rest: Sequence[object]) -> int:
    text = str(subject)
    width = next((value if isinstance(value, int) else len(str(value)) for value in rest), 4)
    return len(text) + (text.count("\n") + 1) * width


def _summed_size(subject: object, rest: Sequence[object]) -> int:
    """A sum of lists copies all before each of them."""
    num = len(subject) if isinstance(subject, Sequence) else 1
    return num * num if any(isinstance(value, list | tuple) for value in rest) else num


def _formatted_size(subject: object, rest: Sequence[object]) -> int:
    return _format_size(str(subject), rest)


_PADDED = frozenset(
    ("center", "ljust", "rjust", "zfill", "indent", "tojson", "batch", "slice", "truncate", "expandtabs")
)
_SIZES: Mapping[str, Callable[[object, Sequence[object]], int]] = {
    "count": _no_size,
    "default": _no_size,
    "first": _no_size,
    "format": _formatted_size,
    "indent": _indented_size,
    "join": _joined_size,
    "last": _no_size,
    "length": _no_size,
    "pprint": _whole_size,
    "replace": _replaced_size,
    "string": _whole_size,
    "sum": _summed_size,
    "tojson": _whole_size,
}


def concatenated(budget: Budget, values: Iterable[object]) -> str:
    """``a ~ b ~ c`` of a template."""
    kept = list(values)
    budget.make(sum(text_size(value) for value in kept))
    return "".join(map(str, kept))
