"""What counts as JSON in UTF-8 in a Content-Type header."""

import pytest

from openai_api.routing.routes import ROUTES
from tests.openai_api.harness import Answer, Asgi
from tests.openai_api.test_access import assert_error

BODY = b'{"prompt":"x"}'


def tokenize(asgi: Asgi, headers: dict[str, str]) -> Answer:
    return asgi.request("POST", "/tokenize", BODY, headers)


@pytest.mark.parametrize(
    "content_type",
    [None, "", ";", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx",
     "application/json; charset=utf-16", "application/ld+json", "text/json", "application/json, text/plain",
     "text/plain; application/json", "text/plain; x=\"application/json\"", "application/json; charset=latin-1; x=y",
     "application/json; x=y; charset=latin-1", "application/json; charset=utf-8; CHARSET=latin-1",
     "application/json; x=\"\\\"; y\"; charset=latin-1", "application /json"],
)  # fmt: skip
def test_bodies_must_be_json_on_every_route_with_a_body(asgi: Asgi, content_type: str | None) -> None:
    """A form or plain text can be posted by any web page without a preflight."""
    for path in (route.path for route in ROUTES if route.body is not None):
        answer = asgi.request("POST", path, b"{}", headers={"content-type": content_type})  # type: ignore[dict-item]
        assert_error(answer, 415, "unsupported_media_type")
        assert "application/json, in UTF-8" in answer.error["message"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", 'application/json; charset="UTF-8"', "application/json;charset=utf8",
     "application/json;", "application/json ;", "application/json; ;", "application/json; charset=utf-8;",
     "application/json; odata=verbose", "application/json; charset=utf-8; odata=verbose",
     "application/json; odata=verbose; Charset=UTF-8", "application/json; boundary=x; a; b=\"c\"",
     "application/json; x=\"; charset=latin-1\"", "application/json; x=\"a\\\"; charset=latin-1\"; charset=utf-8",
     "application/json; charset", "application/json; xcharset=latin-1", "application/json; charset = utf-8"],
)  # fmt: skip
def test_json_is_json_whatever_parameters_stand_behind_it(asgi: Asgi, content_type: str) -> None:
    assert tokenize(asgi, {"content-type": content_type}).status == 200


def test_repeated_headers_must_all_be_right(asgi: Asgi) -> None:
    both = {"content-type": "application/json", "Content-Type": "application/json; charset=utf-8"}
    assert tokenize(asgi, both).status == 200
    for first, second in (("application/json", "text/plain"), ("text/plain", "application/json")):
        answer = tokenize(asgi, {"content-type": first, "Content-Type": second})
        assert_error(answer, 415, "unsupported_media_type")


def test_packed_bodies_are_refused(asgi: Asgi) -> None:
    json_type = {"content-type": "application/json"}
    assert tokenize(asgi, {**json_type, "content-encoding": "Identity"}).status == 200
    for coding in ("gzip", "identity, gzip", ""):
        answer = tokenize(asgi, {**json_type, "content-encoding": coding})
        assert_error(answer, 415, "unsupported_media_type")
    assert_error(
        tokenize(asgi, {**json_type, "content-encoding": "identity", "Content-Encoding": "br"}),
        415,
        "unsupported_media_type",
    )
