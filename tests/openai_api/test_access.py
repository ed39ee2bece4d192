"""Who may call: every route and method, with every way of not being allowed."""

from collections.abc import Iterator

import pytest
from starlette.routing import Route

from openai_api.settings import ServerSettings
from openai_api.transport.access import PUBLIC_PATHS
from openai_api.wires import Wire, wire_of
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import JSON, Answer, Asgi

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
KEY = "k-1_\u00e9"  # compared as bytes, so anything goes
SENT = KEY.encode().decode("latin-1")  # as it looks in a header


def every_route(asgi: Asgi) -> Iterator[tuple[str, Route | None]]:
    """All paths of the app, those FastAPI adds, and one that is not there."""
    for route in asgi.app.routes:
        path: str = route.path  # type: ignore[attr-defined]
        yield path.replace("{model:path}", MODEL_ID), route if isinstance(route, Route) else None
    yield "/nowhere", None


def every_call(asgi: Asgi) -> Iterator[tuple[str, str]]:
    for path, _ in every_route(asgi):
        for method in METHODS:
            yield method, path


def assert_error(answer: Answer, status: int, code: str, kind: str = "invalid_request_error") -> None:
    assert answer.status == status
    if wire_of(answer.path) is Wire.OPENAI:
        assert (answer.error["code"], answer.error["type"]) == (code, kind)
    else:
        assert answer.error["message"]
        assert "code" not in answer.error
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


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
        {"authorization": f"Bearer {SENT}", "Authorization": f"Bearer {SENT}"},
        {"authorization": "Bearer wrong", "Authorization": f"Bearer {SENT}"},
        {"authorization": f"Bearer {SENT}", "Authorization": ""},
        {"authorization": f"Bearer{SENT}"},
        {"x-api-key": ""},
        {"x-api-key": "wrong"},
        {"x-api-key": f"Bearer {SENT}"},
        {"x-api-key": SENT, "X-Api-Key": SENT},
        {"x-api-key": "wrong", "authorization": f"Basic {SENT}"},
        {"api-key": "wrong"},
        {"api-key": SENT, "Api-Key": SENT},
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
        for scheme in ("Bearer ", "bearer ", "BEARER ", "Bearer   ", "Bearer\t", " Bearer \t "):
            sent = as_sent.replace("Bearer ", scheme) + " \t"
            assert asgi.request("GET", "/v1/models", headers={"authorization": sent}).status == 200
        for name in ("x-api-key", "api-key"):
            plain = {name: f" {key.encode().decode('latin-1')}\t"}
            for beside in ({}, {"authorization": "Basic of-a-proxy"}, {"authorization": "Bearer wrong"}):
                assert asgi.request("GET", "/v1/models", headers={**plain, **beside}).status == 200


def test_unknown_paths_and_methods(asgi: Asgi) -> None:
    for path, route in every_route(asgi):
        for method in METHODS:
            answer = asgi.request(method, path, headers=JSON)
            if path == "/nowhere":
                assert_error(answer, 404, "unknown_url")
            elif route is not None and method not in (route.methods or ()):
                assert_error(answer, 405, "method_not_allowed")
                assert answer.headers["allow"] == ", ".join(sorted(route.methods or ()))


def test_head_is_wherever_get_is(asgi: Asgi) -> None:
    """Probes and ``wget --spider`` ask so; the server sends no body (see the wire's tests)."""
    paths = [path for path, route in every_route(asgi) if route and "GET" in (route.methods or ())]
    assert len(paths) >= 13
    for path in paths:
        get, head = asgi.get(path), asgi.request("HEAD", path)
        assert (head.status, head.headers["content-type"]) == (get.status, get.headers["content-type"])
        # No such response; and no folder for files.
        assert get.status == (404 if "{" in path or path in ("/v1/files", "/v1/batches") else 200)
    wrong = asgi.request("HEAD", "/v1/chat/completions")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert asgi.request("POST", "/health").headers["allow"] == "GET, HEAD"


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
