"""The app's own OpenAPI document, and thousands of calls that schemathesis derives from it."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from openai_api.app import create_app
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine, Script
from tests.openai_api.harness import Asgi

ENGINE = FakeEngine(script=Script(text="Hi"))
# httpx and schemathesis call this name; it stands for any other name of the server.
APP = create_app(ENGINE, ServerSettings(allowed_hosts=("testserver",)))
schema = schemathesis.openapi.from_asgi("/openapi.json", APP)


def test_the_document_describes_every_route(asgi: Asgi) -> None:
    document = asgi.get("/openapi.json").json
    for path, operations in document["paths"].items():
        assert set(operations) <= {"get", "post", "delete"}  # HEAD goes without saying
        for operation in operations.values():
            assert {"200", "403", "431", "500", "503"} <= set(operation["responses"]), path
            assert "422" not in operation["responses"]
            if "requestBody" in operation:
                assert {"400", "401", "404", "408", "413", "415"} <= set(operation["responses"])
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        responses = document["paths"][path]["post"]["responses"]
        assert {"429", "504"} <= set(responses)
        assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    for path in ("/api/chat", "/api/generate", "/api/pull"):
        responses = document["paths"][path]["post"]["responses"]
        assert set(responses["200"]["content"]) == {"application/json", "application/x-ndjson"}
        assert responses["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/OllamaErrorAnswer")
    request = document["components"]["schemas"]["ChatCompletionRequest"]
    assert request["additionalProperties"] is False
    assert request["required"] == ["messages"]


@schema.parametrize()
@settings(max_examples=16, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_generated_calls(case: schemathesis.Case[Any]) -> None:
    """No 5xx, no undocumented status or media type, no body that is not as documented."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL_ID  # or nothing would get beyond the 404
    case.call_and_validate(
        checks=[
            checks.not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ]
    )
