"""The reader of large bodies against ``json.loads``: the same values, the same refusals."""

import json
import random
from collections.abc import Callable

import pytest

from openai_api.request import long_json, strict_json
from openai_api.request.long_json import LongJson

RANDOM = random.Random(3)
LONE = "\ud83d"


def read(text: str) -> object:
    return LongJson(
        text,
        max_depth=64,
        max_values=10_000_000,
        object_pairs_hook=list,
        parse_float=lambda digits: ("float", digits),
        parse_constant=lambda name: ("constant", name),
    ).read()


def loaded(text: str) -> object:
    return json.loads(
        text,
        object_pairs_hook=list,
        parse_float=lambda digits: ("float", digits),
        parse_constant=lambda name: ("constant", name),
    )


def outcome(reader: Callable[[str], object], text: str) -> str:
    """``repr`` tells ``True`` from 1."""
    try:
        return repr(reader(text))
    except ValueError as error:
        return type(error).__name__


def some_value(depth: int) -> object:
    match RANDOM.randrange(9 if depth else 6):
        case 0:
            return RANDOM.choice([0, -1, 7, 10**17, -(10**18), 10**30, True, False, None])
        case 1:
            return RANDOM.choice([0.5, -1e-7, 1e300, -0.0, float("inf"), float("nan"), 3.0])
        case 2 | 3:
            return "".join(RANDOM.choices('ab \n"\\/\t\x00\u00e9\u4f60\U0001f642' + LONE, k=RANDOM.randrange(90)))
        case 4 | 5:
            return [RANDOM.randrange(-5, 300_000) for _ in range(RANDOM.randrange(12))]
        case 6 | 7:
            return [some_value(depth - 1) for _ in range(RANDOM.randrange(5))]
    return {str(some_value(0))[:5]: some_value(depth - 1) for _ in range(RANDOM.randrange(5))}


def some_text() -> str:
    separators = RANDOM.choice([(",", ":"), (", ", ": "), (" ,\n", "\t: "), (",    ", ":  ")])
    return json.dumps(
        some_value(4), ensure_ascii=RANDOM.random() < 0.5, separators=separators, indent=RANDOM.choice([None, None, 1])
    )


def mutated(text: str) -> str:
    at, end = sorted(RANDOM.randrange(len(text) + 1) for _ in range(2))
    new = RANDOM.choice(
        ["", ",", "]", "}", '"', "\\", "\\u12", "0", "-", ".", "e", "\x01", " ", "[", "{", ":", "nul", "\u0661"]
    )
    return text[:at] + new + text[RANDOM.choice([at, at + 1, end]) :]


@pytest.mark.parametrize("pieces", ["as they are", "small"])
def test_the_same_as_json_loads(monkeypatch: pytest.MonkeyPatch, pieces: str) -> None:
    """Also with seams everywhere."""
    if pieces == "small":
        for name in ("_SPACE", "_STRING_PIECE", "_SCALARS"):
            small = getattr(long_json, name).pattern.replace("16384", "1").replace("512", "1").replace("1024", "2")
            monkeypatch.setattr(long_json, name, long_json.re.compile(small.replace("{1,64}", "{1,2}")))
    num_valid = 0
    for _ in range(3_000):
        text = some_text()
        assert outcome(read, text) == outcome(loaded, text), text
        for _ in range(3):
            text = mutated(text)
            assert outcome(read, text) == outcome(loaded, text), text
            num_valid += outcome(read, text) != "JSONDecodeError"
    assert num_valid > 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[",
        "{",
        '"',
        '"\\',
        '"\\u',
        "[1",
        "[1,",
        "[1,]",
        "[,]",
        "{,}",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,}',
        "01",
        "-",
        "1.",
        "1e",
        "+1",
        ".5",
        "truex",
        "tru",
        "1 2",
        "[] []",
        "'a'",
        "[1 2]",
        '{"a" 1}',
        "\ufeff1",
        "\u0661",
        "[1}",
    ],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        read(text)
    assert 0 <= caught.value.pos <= len(text)


@pytest.mark.parametrize("pair", ["\\ud83d\\ude42", "\\uDBFF\\uDFFF", "\\uDAaF\\udC00", "\\uda00\\uDdDd"])
def test_a_surrogate_pair_is_not_cut(pair: str) -> None:
    for before in ("", "\\n", "\\n\\n"):
        text = f'"{before}{pair * 2_000}"'
        assert read(text) == json.loads(text)


def test_numbers_that_are_long() -> None:
    assert read(f"[{'9' * 4300},1]") == [int("9" * 4300), 1]
    for digits in ("9" * 4301, "9" * 100_000):
        with pytest.raises(ValueError, match="4300 digits"):
            read(f"[{digits},1]")
    assert read("[0." + "1" * 4000 + "]") == [("float", "0." + "1" * 4000)]


def test_depth() -> None:
    assert read("[" * 64 + "]" * 64) is not None
    for opening in ("[" * 65, '{"a":' * 65, "[" * 4_000_000):
        with pytest.raises(RecursionError):
            read(opening)


def test_no_call_into_c_sees_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else runs while it does."""
    lengths: list[int] = []
    loads = json.loads

    def counted(text: str, **hooks: object) -> object:
        lengths.append(len(text))
        return loads(text, **hooks)  # type: ignore[arg-type]

    monkeypatch.setattr(long_json.json, "loads", counted)
    for text in ('"' + "a\\n" * 100_000 + '"', "[" + "1," * 100_000 + "1]", "[" + '"abc",' * 100_000 + "1]"):
        assert outcome(read, text) == outcome(loads, text)
    assert len(lengths) > 100
    assert max(lengths) < 100_000


def test_only_a_large_body_is_read_that_way(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    class Counted(LongJson):
        def read(self) -> object:
            used.append(len(self._text))
            return super().read()

    monkeypatch.setattr(strict_json, "LongJson", Counted)
    for size in (64 * 1024, 64 * 1024 + 1):
        body = b'"' + b"a" * (size - 2) + b'"'
        assert strict_json.parse_json(body, max_depth=64, max_values=9) == "a" * (size - 2)
    assert used == [64 * 1024 + 1]
