"""The JSON of a large body, piece by piece: ``json.loads`` for texts that would keep every other
thread waiting.

``json.loads`` holds the interpreter until it is done, up to 0.4 s for 4 MiB. Here values are read
in Python, where threads take turns, and only short strings and runs of simple values by the C code.
Knows what JSON is and no more, as ``json`` does; the number of values is bounded because each takes
time, and memory many times its bytes. Pure; any thread may call it.
"""

import json
import re
from collections.abc import Callable

# Bounded repeats: no match takes longer than a few milliseconds. Those of groups are not possessive,
# which Python before 3.11.5 matches wrongly (cpython issue 106052); nothing behind them makes them backtrack.
_SPACE = re.compile(r"[ \t\n\r]{0,16384}+")
_SPACES = frozenset(" \t\n\r")
_INTEGER = r"-?(?:0|[1-9][0-9]{0,4999}+)"
_EXPONENT = r"(?:\.[0-9]{1,4999}+)?(?:[eE][-+]?[0-9]{1,4999}+)?"
_NUMBER = re.compile(f"({_INTEGER})({_EXPONENT})")
_CONSTANT = re.compile(r"NaN|-?Infinity")
_LITERALS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}
# Up to 32 Ki characters of a string, never cut within an escape or between the two of a surrogate
# pair.
_STRING_PIECE = re.compile(
    r'(?:[^"\\\x00-\x1f]{1,64}+'
    r'|\\["\\/bfnrt]'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u[0-9a-fA-F]{4}){0,512}"
)
# Simple values of an array, each with its comma.
_SCALARS = re.compile(
    r'(?:[ \t\n\r]?(?:"[^"\\\x00-\x1f]{0,64}+"|true|false|null'
    r"|-?(?:0|[1-9][0-9]{0,17}+)(?:\.[0-9]{1,18}+)?(?:[eE][-+]?[0-9]{1,3}+)?),){1,1024}"
)

# An object takes as long and as much memory as so many values more, and so does each member.
_OBJECT_COST = 4


class TooManyValuesError(ValueError):
    """The text has more values than allowed."""


class LongJson:
    """Reads one text, as ``json.loads`` with these hooks. For one use: ``read`` is called once."""

    def __init__(
        self,
        text: str,
        *,
        max_depth: int,
        max_values: int,
        object_pairs_hook: Callable[[list[tuple[str, object]]], object],
        parse_float: Callable[[str], object],
        parse_constant: Callable[[str], object],
    ) -> None:
        self._text = text
        self._at = 0
        self._max_depth = max_depth
        self._values_left = max_values
        self._object_pairs_hook = object_pairs_hook
        self._parse_float = parse_float
        self._parse_constant = parse_constant

    def read(self) -> object:
        """The value of the text.

        Raises:
            json.JSONDecodeError: it is not JSON.
            RecursionError: it is nested deeper than ``max_depth``.
            TooManyValuesError: it has more than ``max_values`` values.
            ValueError: an integer of more than 4,300 digits, or what a hook raises.
        """
        value = self._value(self._max_depth)
        if self._take():
            raise self._error()
        return value

    def _value(self, depth_left: int) -> object:
        self._count(1)
        char = self._take()
        if char == '"':
            return self._string()
        if char in {"[", "{"}:
            if depth_left == 0:
                raise RecursionError
            return self._array(depth_left) if char == "[" else self._object(depth_left)
        self._at -= 1
        return self._scalar(char)

    def _array(self, depth_left: int) -> list[object]:
        values: list[object] = []
        if self._take() == "]":
            return values
        self._at -= 1
        while True:
            values += self._scalars()
            values.append(self._value(depth_left - 1))
            if not self._goes_on("]"):
                return values

    def _object(self, depth_left: int) -> object:
        pairs: list[tuple[str, object]] = []
        self._count(_OBJECT_COST)
        char = self._take()
        while char == '"':
            self._count(_OBJECT_COST)
            name = self._string()
            if self._take() != ":":
                raise self._error()
            pairs.append((name, self._value(depth_left - 1)))
            if not self._goes_on("}"):
                return self._object_pairs_hook(pairs)
            char = self._take()
        if char != "}" or pairs:
            raise self._error()
        return self._object_pairs_hook(pairs)

    def _string(self) -> str:
        """What follows an opening quote, behind which the position is."""
        pieces = []
        while True:
            match = _STRING_PIECE.match(self._text, self._at)
            assert match is not None
            piece, end = match[0], match.end()
            pieces.append(json.loads(f'"{piece}"') if "\\" in piece else piece)
            if self._text[end : end + 1] == '"':
                self._at = end + 1
                return "".join(pieces) if len(pieces) > 1 else pieces[0]
            if not piece:
                self._at += 1
                raise self._error()
            self._at = end

    def _scalars(self) -> list[object]:
        """As many simple values as stand here, each with a comma behind it; perhaps none."""
        values: list[object] = []
        while match := _SCALARS.match(self._text, self._at):
            run = json.loads(f"[{match[0][:-1]}]", parse_float=self._parse_float)
            self._count(len(run))
            values += run
            self._at = match.end()
        return values

    def _scalar(self, char: str) -> object:
        if char in _LITERALS:
            word, value = _LITERALS[char]
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value
        match = _NUMBER.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            return self._parse_float(match[0]) if match[2] else int(match[0])
        match = _CONSTANT.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            return self._parse_constant(match[0])
        self._at += 1
        raise self._error()

    def _goes_on(self, closing: str) -> bool:
        char = self._take()
        if char not in {",", closing}:
            raise self._error()
        return char == ","

    def _take(self) -> str:
        """The next character that is no space, ``""`` at the end. The position is behind it."""
        text = self._text
        while (char := text[self._at : self._at + 1]) in _SPACES:
            match = _SPACE.match(text, self._at)
            assert match is not None
            self._at = match.end()
        self._at += 1
        return char

    def _count(self, num_values: int) -> None:
        self._values_left -= num_values
        if self._values_left < 0:
            raise TooManyValuesError

    def _error(self) -> json.JSONDecodeError:
        """About the character that was taken last."""
        return json.JSONDecodeError("Syntax error", self._text, self._at - 1)
