"""What a request body may be before anybody asks what is in it."""

import json

import pytest

from openai_api.errors import ApiError
from openai_api.request.strict_json import parse_json

FOUR_MIB = 4 * 1024 * 1024


def parse(body: bytes, max_depth: int = 64) -> object:
    return parse_json(body, max_depth=max_depth, max_values=300_000)


@pytest.mark.parametrize("value", [{}, [], "x", 1, -1.5, None, True, {"a": [1, {"b": "\u00e9\U0001f642"}]}])
def test_ordinary_json_is_parsed(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "syntax error"),
        (b"{", "syntax error"),
        (b'{"a":1,}', "syntax error"),
        (b"{'a':1}", "syntax error"),
        (b'{"a":1} x', "syntax error"),
        (b'"\x00"', "syntax error"),
        (b"\xff", "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "syntax error"),
        ('{"a": 1}'.encode("utf-32-be"), "syntax error"),
        ('{"a": 1}'.encode("utf-8-sig"), "syntax error"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "NaN"),
        (b'{"a":-Infinity}', "NaN"),
        (b"1e400", "too large"),
        (b"-1e400", "too large"),
        (b"9" * 5000, "too long"),
        (b'{"a":1,"a":1}', "occurs twice"),
        (b'{"a":{"b":1,"c":2,"b":3}}', "occurs twice"),
        (b'"\\ud800"', "lone surrogate"),
        (b'["\\udc00\\ud800"]', "lone surrogate"),
        (b'{"\\ud83d":1}', "lone surrogate"),
        (b"[" * 100_000, "nested deeper"),
    ],
)
def test_what_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert reason in caught.value.message


def test_a_surrogate_pair_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude42"') == "\U0001f642"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth(opening: bytes, closing: bytes) -> None:
    def nested(depth: int) -> bytes:
        return opening * depth + b"1" + closing * depth

    for depth in (63, 64):
        parse(nested(depth))
    for depth in (65, 200):
        with pytest.raises(ApiError, match="nested deeper than 64"):
            parse(nested(depth))


@pytest.mark.parametrize("entry", [b"[],", b"1,", b'"a",', b"1e5,", b'{"a":1},'])
def test_a_large_body_has_no_more_values_than_allowed(entry: bytes) -> None:
    """Each value takes time and up to 200 bytes of memory."""
    body = b"[" + entry * (FOUR_MIB // len(entry)) + b"1]"
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_value")
    assert "more than 300000 values" in caught.value.message


def test_an_object_and_a_member_count_as_more() -> None:
    """They take as long and as much memory."""
    for body in (b"[" + b"{}," * 60_000 + b"1]", json.dumps({f"f{i}": 1 for i in range(60_000)}).encode()):
        with pytest.raises(ApiError, match="more than"):
            parse(body)
    parse(b"[" + b"{}," * 59_000 + b"1]")


def test_the_number_of_values() -> None:
    token_ids = [[100_000 + i] * 2_048 for i in range(128)]
    body = json.dumps({"prompt": token_ids}).encode()
    num_values = 10 + 128 + 128 * 2_048
    assert parse_json(body, max_depth=64, max_values=num_values) == {"prompt": token_ids}
    with pytest.raises(ApiError, match="more than"):
        parse_json(body, max_depth=64, max_values=num_values - 1)
