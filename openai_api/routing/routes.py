"""Which function serves which path, and what the OpenAPI document says of it.

Owns the table of endpoints with their bodies, answers and errors. Knows nothing of how they are
served. Runs once, when the app is made; the document is made in a worker thread at the first
request of it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_api.answer.anthropic_models import AnthropicErrorAnswer, AnthropicModel, AnthropicModelList
from openai_api.answer.decision_models import Decision, SystemOneAnswer
from openai_api.answer.models import ChatCompletion, Completion, ErrorAnswer
from openai_api.answer.ollama_models import OllamaErrorAnswer
from openai_api.answer.server_models import (
    CapabilitiesAnswer,
    DetokenizeAnswer,
    ModelCard,
    ModelList,
    ServerAnswer,
    StatusAnswer,
    TokenizeAnswer,
    TokenizerInfoAnswer,
    VersionAnswer,
)
from openai_api.endpoints import status
from openai_api.endpoints.chat import create_chat_completion
from openai_api.endpoints.completions import create_completion
from openai_api.endpoints.decisions import create_decision, system_one
from openai_api.endpoints.home_page import home_page, page_file
from openai_api.endpoints.server_status import server_status
from openai_api.endpoints.status import ANTHROPIC_VERSION
from openai_api.endpoints.tokenization import detokenize, tokenize, tokenizer_info
from openai_api.page_files import PAGE_PREFIX
from openai_api.request.decision_fields import DecisionRequest
from openai_api.request.query import QueryParameter
from openai_api.request.schemas import ChatCompletionRequest, CompletionRequest
from openai_api.request.system_one_fields import SystemOneRequest
from openai_api.request.tokenize_fields import DetokenizeRequest, TokenizeRequest
from openai_api.routing.anthropic_routes import ANTHROPIC_ROUTES
from openai_api.routing.batch_routes import BATCH_ROUTES
from openai_api.routing.ollama_routes import OLLAMA_ROUTES
from openai_api.routing.response_routes import RESPONSE_ROUTES
from openai_api.routing.route import ANY, BODY, DESCRIPTIONS, EVENTS, GENERATION, MODEL, Route
from openai_api.wires import Wire, wire_of

ERROR_OF_WIRE: Mapping[Wire, type[BaseModel]] = {
    Wire.OPENAI: ErrorAnswer,
    Wire.ANTHROPIC: AnthropicErrorAnswer,
    Wire.OLLAMA: OllamaErrorAnswer,
}

ANTHROPIC_HEADER = {
    "name": ANTHROPIC_VERSION,
    "in": "header",
    "description": "Stands in every request of Anthropic's clients, and asks for the answer in their form.",
    "schema": {"type": "string"},
}

ROUTES = (
    Route(
        path="/v1/chat/completions",
        serve=create_chat_completion,
        body=ChatCompletionRequest,
        answer=ChatCompletion,
        streams=EVENTS,
        errors=GENERATION,
    ),
    Route(
        path="/v1/completions",
        serve=create_completion,
        body=CompletionRequest,
        answer=Completion,
        streams=EVENTS,
        errors=GENERATION,
    ),
    Route(path="/v1/decisions", serve=create_decision, body=DecisionRequest, answer=Decision, errors=GENERATION),
    Route(path="/v1/systemone", serve=system_one, body=SystemOneRequest, answer=SystemOneAnswer, errors=GENERATION),
    *RESPONSE_ROUTES,
    *BATCH_ROUTES,
    *ANTHROPIC_ROUTES,
    Route(path="/tokenize", serve=tokenize, body=TokenizeRequest, answer=TokenizeAnswer, errors=BODY),
    Route(path="/detokenize", serve=detokenize, body=DetokenizeRequest, answer=DetokenizeAnswer, errors=BODY),
    Route(path="/tokenizer_info", serve=tokenizer_info, answer=TokenizerInfoAnswer, errors=MODEL),
    Route(path="/version", serve=status.version, answer=VersionAnswer, errors=MODEL),
    Route(
        path="/v1/models",
        serve=status.list_models,
        answer=ModelList,
        anthropic_answer=AnthropicModelList,
        errors=MODEL,
    ),
    # A path, as a model may be called OWNER/NAME.
    Route(
        path="/v1/models/{model:path}",
        serve=status.retrieve_model,
        answer=ModelCard,
        anthropic_answer=AnthropicModel,
        errors=(404, *MODEL),
        parameters=("model",),
    ),
    Route(path="/v1/capabilities", serve=status.capabilities, answer=CapabilitiesAnswer, errors=MODEL),
    Route(path="/v1/server", serve=server_status, answer=ServerAnswer, errors=MODEL),
    Route(path="/health", serve=status.health, answer=StatusAnswer),
    Route(path="/live", serve=status.live, answer=StatusAnswer),
    Route(path="/metrics", serve=status.metrics, text="text/plain", errors=MODEL),
    *OLLAMA_ROUTES,
    Route(path="/", serve=home_page, text="text/html"),
    Route(
        path=PAGE_PREFIX + "{name:path}",
        serve=page_file,
        text="text/javascript",
        errors=(404, *ANY),
        parameters=("name",),
    ),
)


class _Endpoint:
    """The ASGI application of one path. FastAPI's own would read the source of ``serve`` at the first
    request, and look for parameters, which these functions have not, at each.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = {route.method: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        route = scope["route"] = self.routes["GET" if method == "HEAD" else method]
        response = await route.serve(Request(scope, receive, send))
        await response(scope, receive, send)


def add_routes(app: FastAPI) -> None:
    """Make ``app`` serve all of ``ROUTES``, and HEAD wherever GET is; FastAPI only documents them,
    the functions read and answer by themselves.
    """
    routes = (*ROUTES, Route(path="/openapi.json", serve=_openapi_endpoint(app)))
    for path in dict.fromkeys(route.path for route in routes):
        endpoint = _Endpoint(route for route in routes if route.path == path)
        application: Any = endpoint  # starlette takes these too, which its annotations leave out
        app.router.add_route(path, application, methods=list(endpoint.routes))


def _openapi_endpoint(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """The document is 45 ms of work, so it is made once, when somebody wants it."""

    @cache
    def document() -> bytes:
        return json.dumps(openapi_document(app), ensure_ascii=False, separators=(",", ":")).encode()

    async def openapi(_request: Request) -> Response:
        return Response(await asyncio.to_thread(document), media_type="application/json")

    return openapi


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with the schemas of our bodies, which FastAPI does not see: this server
    reads them itself.
    """
    documented = APIRouter()
    for route in ROUTES:
        _document(documented, route)
    document = get_openapi(title=app.title, version=app.version, routes=documented.routes)
    bodies = [(route.body, "validation") for route in ROUTES if route.body is not None]
    answers = [(answer, "serialization") for route in ROUTES for answer in _answers(route)]
    errors = [(error, "serialization") for error in ERROR_OF_WIRE.values()]
    models: Any = [*bodies, *answers, *errors]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")
    document["components"] = {"schemas": schemas["$defs"]}
    return document


def _document(router: APIRouter, route: Route) -> None:
    router.add_api_route(
        route.path,
        route.serve,
        methods=[route.method],  # HEAD goes without saying
        response_model=None,
        response_class=Response,
        responses=_responses(route),
        openapi_extra=_openapi_extra(route),
    )


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    answers = _answers(route)
    content: dict[str, Any] = _json_of(*answers) if answers else {}
    if route.streams:
        content[route.streams] = {}
    if route.text:
        content[route.text] = {"schema": {"type": "string"}}
    responses: dict[int | str, dict[str, Any]] = {200: {"description": "The answer.", "content": content}}
    for code in route.errors:
        responses[code] = {"description": DESCRIPTIONS[code], "content": _json_of(ERROR_OF_WIRE[wire_of(route.path)])}
    return responses


def _answers(route: Route) -> list[type[BaseModel]]:
    return [answer for answer in (route.answer, route.anthropic_answer) if answer is not None]


def _json_of(*models: type[BaseModel]) -> dict[str, Any]:
    references = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    return {"application/json": {"schema": references[0] if len(references) == 1 else {"anyOf": references}}}


def _openapi_extra(route: Route) -> dict[str, Any]:
    parameters = [*map(_path_parameter, route.parameters), *map(_query_parameter, route.query)]
    if route.anthropic_answer is not None:
        parameters.append(ANTHROPIC_HEADER)
    extra: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if route.body is not None:
        extra["requestBody"] = {"required": True, "content": _json_of(route.body)}
    return extra


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(parameter: QueryParameter) -> dict[str, Any]:
    return {"name": parameter.name, "in": "query", "description": parameter.about, "schema": parameter.schema}
