"""What people mistype, and what they are told."""

import json

import pytest

from openai_api.routing.routes import ROUTES
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import JSON, Asgi
from tests.openai_api.test_access import assert_error

CHAT, COMPLETIONS, MODELS = "POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("POST", "//v1/chat/completions", CHAT),
        ("POST", "/v1/chat/completions/", CHAT),
        ("POST", "/v1/v1/chat/completions", CHAT),
        ("POST", "/v1/chat/completions/chat/completions", CHAT),
        ("POST", "/chat/completions", CHAT),
        ("POST", "/V1/Chat/Completions", CHAT),
        ("POST", "/v1/chat/completion", CHAT),
        ("POST", "/v1/chat_completions", CHAT),
        ("POST", "/v1/chat", CHAT),
        ("POST", "/responses", "POST /v1/responses"),
        ("POST", "/openai/deployments/gemma/chat/completions", CHAT),
        ("POST", "/v1", CHAT),
        ("POST", "/v1/", CHAT),
        ("GET", "/v1", MODELS),
        ("GET", "/v1/chat/completion", CHAT),
        ("POST", "/completions", COMPLETIONS),
        ("POST", "/v1/completion", COMPLETIONS),
        ("POST", "/v1/engines/gemma/completions", COMPLETIONS),
        ("GET", "/models", MODELS),
        ("GET", "//v1/models", MODELS),
        ("GET", "/models/gemma-3-270m-it", MODELS),
        ("POST", "/v1/tokenize", "POST /tokenize"),
        ("POST", "/detokenise", "POST /detokenize"),
        ("GET", "/health/", "GET /health"),
        ("GET", "/healthz", "GET /health"),
        ("GET", "/metric", "GET /metrics"),
        ("GET", "/capabilities", "GET /v1/capabilities"),
        ("GET", "/docs", "GET /openapi.json"),
        ("POST", "/api/v1/chat", CHAT),
        ("POST", "/api/v1/generate", COMPLETIONS),
        ("POST", "/generate", COMPLETIONS),
        ("GET", "/tags", MODELS),
    ],
)
def test_what_is_mistyped_is_404_and_names_what_is_meant(asgi: Asgi, method: str, path: str, meant: str) -> None:
    answer = asgi.request(method, path, b"{}", JSON)
    assert_error(answer, 404, "unknown_url")
    base_url = " The base URL for clients is http://localhost/v1." if " /v1/" in meant else ""
    assert answer.error["message"] == f"There is no such endpoint. Did you mean {meant}?{base_url}"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/embeddings", "/v1/images/generations", "/favicon.ico", "/\u00e9", "", "/v1" * 5000]
)
def test_what_is_like_nothing_is_404_and_is_not_quoted(asgi: Asgi, path: str) -> None:
    answer = asgi.get(path) if path else asgi.get("/.")
    assert_error(answer, 404, "unknown_url")
    words = "There is no such endpoint. GET /openapi.json lists all. The base URL for clients is http://localhost/v1."
    assert answer.error["message"] == words


def test_the_base_url_is_the_one_of_the_client(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(allowed_hosts=("gemma.lan",)))
    for host in ("gemma.lan:8000", "[::1]:81"):
        for path in ("/chat/completions", "/v1/v1/chat/completions"):
            answer = asgi.request("POST", path, b"{}", {**JSON, "host": host})
            assert answer.error["message"].endswith(f"The base URL for clients is http://{host}/v1.")


def test_every_path_of_ours_is_named_when_one_letter_is_missing(asgi: Asgi) -> None:
    for route in (route for route in ROUTES if route.path != "/" and "{" not in route.path):
        answer = asgi.request(route.method, route.path[:-1], b"{}", JSON)
        assert f"{route.method} {route.path}?" in answer.error["message"]


def test_the_list_of_models_may_end_in_a_slash(asgi: Asgi) -> None:
    for method in ("GET", "HEAD"):
        assert asgi.request(method, "/v1/models/").body == asgi.get("/v1/models").body
    assert asgi.get("/v1/models//").error["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/api/chat/", "POST /api/chat"),
        ("//api//chat", "POST /api/chat"),
        ("/API/Generate", "POST /api/generate"),
        ("/api/tag", "GET /api/tags"),
        ("/api/versions", "GET /api/version"),
        ("/api/health", "GET /health"),
        ("/api/models", MODELS),
    ],
)
def test_below_api_ollamas_paths_come_first(asgi: Asgi, path: str, meant: str) -> None:
    answer = asgi.request("POST", path, b"{}", JSON)
    assert answer.error["message"].startswith(f"There is no such endpoint. Did you mean {meant}?")


def test_an_error_has_the_form_of_the_api_that_its_path_is_of(asgi: Asgi) -> None:
    ollama = json.loads(asgi.request("GET", "/api/nothing").body)
    assert list(ollama) == ["error"]
    assert "no such endpoint" in ollama["error"]
    anthropic = json.loads(asgi.request("GET", "/v1/messages/nothing").body)
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "not_found_error"
    assert "no such endpoint" in anthropic["error"]["message"]
