"""The app's own OpenAPI document, and thousands of calls that schemathesis derives from it."""

import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import openai_api
from openai_api.app import create_app
from openai_api.errors import ApiError
from openai_api.request.query import QueryParameter
from openai_api.routing.routes import ROUTES
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


def test_no_handler_reads_a_parameter_that_the_document_lacks(asgi: Asgi) -> None:
    """The one reader knows the route's own parameters alone, and all of these are in the document."""
    readers = [path for path in Path(openai_api.__file__).parent.rglob("*.py") if "query_params" in path.read_text()]
    assert [path.name for path in readers] == ["query.py"]
    document, num_parameters = asgi.get("/openapi.json").json, 0
    for route in ROUTES:
        described = document["paths"][re.sub(r":\w+}", "}", route.path)][route.method.lower()].get("parameters", [])
        told = {each["name"]: each["schema"] for each in described if each["in"] == "query"}
        assert told == {each.name: each.schema for each in route.query}, route.path
        num_parameters += len(told)
    assert num_parameters >= 10


PARAMETERS = [each for route in ROUTES for each in route.query]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_a_parameter_means_what_the_document_says(parameter: QueryParameter) -> None:
    """The default, every choice and both ends of a range are read; what is beyond is a 400 that names it."""
    schema = parameter.schema
    allowed = schema.get("enum", ["x"])
    refused = ["x", ""] if "enum" in schema else []
    if schema["type"] == "integer":
        allowed = [schema["minimum"], schema["maximum"]]
        refused = [schema["minimum"] - 1, schema["maximum"] + 1, "\u0661", ""]
    for value in [*allowed, *([schema["default"]] if "default" in schema else [])]:
        assert parameter.read(str(value)) == value
    for value in refused:
        with pytest.raises(ApiError) as error:
            parameter.read(str(value))
        assert (error.value.status, error.value.param) == (400, parameter.name)


def test_models_are_described_in_both_forms(asgi: Asgi) -> None:
    document = asgi.get("/openapi.json").json
    for path, names in {
        "/v1/models": ("ModelList", "AnthropicModelList"),
        "/v1/models/{model}": ("ModelCard", "AnthropicModel"),
    }.items():
        operation = document["paths"][path]["get"]
        (header,) = [each for each in operation["parameters"] if each["in"] == "header"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema == {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}
        answer = asgi.request("GET", path.format(model=MODEL_ID), headers={header["name"]: "2023-06-01"})
        assert set(answer.json) == set(document["components"]["schemas"][names[1]]["properties"])
