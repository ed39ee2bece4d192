"""Who may call: every route and method, with every way of not being allowed."""

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from openai_api.settings import ServerSettings
from openai_api.transport.access import PUBLIC_PATHS
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import JSON, Answer, Asgi

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
KEY = "k-1_\u00e9"  # compared as bytes, so anything goes
SENT = KEY.encode().decode("latin-1")  # as it looks in a header


def every_route(asgi: Asgi) -> Iterator[tuple[str, APIRoute | None]]:
    """All paths of the app, those FastAPI adds, and one that is not there."""
    for route in asgi.app.routes:
        path: str = route.path  # type: ignore[attr-defined]
        yield path.replace("{model:path}", MODEL_ID), route if isinstance(route, APIRoute) else None
    yield "/nowhere", None


def every_call(asgi: Asgi) -> Iterator[tuple[str, str]]:
    for path, _ in every_route(asgi):
        for method in METHODS:
            yield method, path


def assert_error(answer: Answer, status: int, code: str, kind: str = "invalid_request_error") -> None:
    assert answer.status == status
    assert (answer.error["code"], answer.error["type"]) == (code, kind)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]", "0.0.0.0",
     "localhost:port", "localhost:123456", "local host", "a@localhost", "[localhost]", "localhost.", "", "127.0.0.2"],
)  # fmt: skip
def test_foreign_hosts_are_refused_everywhere(asgi: Asgi, host: str) -> None:
    for method, path in every_call(asgi):
        answer = asgi.request(method, path, headers={"host": host, **JSON})
        assert_error(answer, 403, "host_not_allowed", "permission_error")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"])
def test_loopback_names_are_allowed_with_any_port(asgi: Asgi, host: str) -> None:
    assert asgi.request("GET", "/v1/models", headers={"host": host}).status == 200


def test_a_missing_or_repeated_host_is_refused(asgi: Asgi) -> None:
    assert_error(asgi.request("GET", "/health", headers={"host": None}), 403, "host_not_allowed", "permission_error")  # type: ignore[dict-item]
    two = asgi.request("GET", "/health", headers={"host": "localhost", "Host": "localhost"})
    assert_error(two, 403, "host_not_allowed", "permission_error")


def test_the_bound_host_and_configured_ones_are_allowed(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(host="10.0.0.5", allowed_hosts=("Model.Lan",)))
    for host in ("10.0.0.5:8000", "model.lan", "MODEL.LAN:80", "localhost"):
        assert asgi.request("GET", "/health", headers={"host": host}).status == 200
    assert asgi.request("GET", "/health", headers={"host": "10.0.0.6"}).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://[localhost"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost", "Origin": "https://evil.example"},
    ],
)
def test_foreign_origins_are_refused_everywhere(asgi: Asgi, headers: dict[str, str]) -> None:
    for method, path in every_call(asgi):
        answer = asgi.request(method, path, headers={**headers, **JSON})
        assert_error(answer, 403, "origin_not_allowed", "permission_error")
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:8000", "host": "localhost:8000", "sec-fetch-site": "same-origin"},
        {"origin": "https://localhost", "host": "localhost"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin"},
        {},
    ],
)
def test_the_servers_own_pages_may_call_without_cors(asgi: Asgi, headers: dict[str, str]) -> None:
    answer = asgi.request("GET", "/v1/models", headers=headers)
    assert answer.status == 200
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_configured_origin_gets_cors_headers(engine: FakeEngine) -> None:
    origin = "https://app.example"
    asgi = Asgi(engine, ServerSettings(allowed_origins=(origin,), api_keys=("secret",)))
    headers = {"origin": origin, "sec-fetch-site": "cross-site"}
    for answer in (
        asgi.request("GET", "/health", headers=headers),
        asgi.request("GET", "/v1/models", headers=headers),  # 401, which the page must be able to read
        asgi.request("GET", "/v1/models", headers={**headers, "authorization": "Bearer secret"}),
    ):
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"]
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-stainless-os"}
    preflight = asgi.request("OPTIONS", "/v1/chat/completions", headers={**headers, **ask})
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"
    assert preflight.headers["access-control-allow-headers"] == ask["access-control-request-headers"]
    for other in ("https://app.example.evil", "http://app.example", "https://app.example:444"):
        assert asgi.request("OPTIONS", "/v1/models", headers={**ask, "origin": other}).status == 403


def test_keys_are_asked_for_everywhere_but_on_public_paths(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(api_keys=("other", KEY)))
    wrong: list[dict[str, str]] = [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {SENT}"},
        {"authorization": SENT},
        {"authorization": f"Bearer {SENT}x"},
        {"authorization": f"Bearer {SENT[:-1]}"},
        {"authorization": f"Bearer {SENT}, Bearer {SENT}"},
        {"x-api-key": SENT},
    ]
    for method, path in every_call(asgi):
        for headers in wrong if method in {"GET", "POST"} else wrong[:1]:
            answer = asgi.request(method, path, headers={**JSON, **headers})
            if path in PUBLIC_PATHS:
                assert answer.status in {200, 405}
            else:
                assert_error(answer, 401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"


def test_public_paths_are_exact(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(api_keys=("k",)))
    for path in ("/health/", "//health", "/Health", "/health/../v1/models", "/live%2f", "/health;x", ""):
        assert asgi.get(path).status == 401
    assert sorted(PUBLIC_PATHS) == ["/", "/health", "/live"]


def test_any_of_the_keys_opens(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(api_keys=("other", KEY)))
    for key in ("other", KEY):
        as_sent = f"Bearer {key}".encode().decode("latin-1")
        for scheme in (as_sent, as_sent.replace("Bearer", "bearer")):
            assert asgi.request("GET", "/v1/models", headers={"authorization": scheme}).status == 200


def test_unknown_paths_and_methods(asgi: Asgi) -> None:
    for path, route in every_route(asgi):
        for method in METHODS:
            answer = asgi.request(method, path, headers=JSON)
            if path == "/nowhere":
                assert_error(answer, 404, "unknown_url")
            elif route is not None and method not in (route.methods or ()):
                assert_error(answer, 405, "method_not_allowed")
                assert answer.headers["allow"] == ", ".join(route.methods or ())
    for path in ("/v1/models/", "/v1/chat/completions/", "//v1/models", "/docs", "/redoc", "/v1"):
        assert asgi.get(path).status == 404


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx",
     "application/json; charset=utf-16", "application/ld+json", "text/json", "application/json, text/plain"],
)  # fmt: skip
def test_bodies_must_be_json_on_every_post_route(asgi: Asgi, content_type: str | None) -> None:
    """A form or plain text can be posted by any web page without a preflight."""
    for path, route in every_route(asgi):
        if route is not None and "POST" in (route.methods or ()):
            answer = asgi.request("POST", path, b"{}", headers={"content-type": content_type})  # type: ignore[dict-item]
            assert_error(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", 'application/json; charset="UTF-8"'])
def test_json_is_json(asgi: Asgi, content_type: str) -> None:
    answer = asgi.request("POST", "/tokenize", b'{"prompt":"x"}', headers={"content-type": content_type})
    assert answer.status == 200
    packed = asgi.request("POST", "/tokenize", b"{}", headers={**JSON, "content-encoding": "gzip"})
    assert_error(packed, 415, "unsupported_media_type")


def test_request_ids(asgi: Asgi) -> None:
    for own in ("abc", "A-b_c.d:9", "x" * 128):
        for path in ("/health", "/nowhere", "/v1/models/x"):
            assert asgi.request("GET", path, headers={"x-request-id": own}).headers["x-request-id"] == own
    for bad in ("", "x" * 129, "a b", "a\tb", "\u00e9", "<script>", 'a"b'):
        answer = asgi.request("GET", "/health", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"].startswith("req_")
    ids = {asgi.get("/health").headers["x-request-id"] for _ in range(10)}
    assert len(ids) == 10
    assert asgi.get("/health").headers["openai-processing-ms"].isdecimal()
