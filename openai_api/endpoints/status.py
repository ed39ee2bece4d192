"""What the server says of itself: ``/health``, ``/live``, ``/version``, ``/metrics``, the models and
the capabilities.

Owns which of these need a loaded model. Reads plain values of the engine and never asks it to
compute. Runs on the event loop.
"""

from datetime import UTC, datetime
from functools import cache

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from engine.engine_info import EngineStatus, ModelInfo
from gemma3 import __version__
from openai_api.answer.anthropic_models import AnthropicModel, AnthropicModelList
from openai_api.answer.models import json_response
from openai_api.answer.server_models import CapabilitiesAnswer, ModelCard, ModelList, StatusAnswer, VersionAnswer
from openai_api.app_state import app_state_of
from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.neutral_values import in_words
from openai_api.request.request_field import RequestField, Support

ANTHROPIC_VERSION = "anthropic-version"


async def health(request: Request) -> Response:
    """200 if a request would be served now.

    Raises:
        EngineNotReadyError: it would not be: 503.
    """
    app_state = app_state_of(request)
    app_state.check_ready()
    return json_response(StatusAnswer(status=app_state.engine.status.value))


async def live(request: Request) -> Response:
    """200 unless only a restart helps.

    Raises:
        EngineNotReadyError: the engine is dead: 503.
    """
    app_state = app_state_of(request)
    if app_state.engine.status is EngineStatus.DEAD:
        app_state.check_ready()
    return json_response(StatusAnswer(status=app_state.engine.status.value))


async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text form, also while the model loads."""
    return Response(app_state_of(request).metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def version(_request: Request) -> Response:
    """The version of this program, also while the model loads."""
    return json_response(VersionAnswer(version=__version__))


async def list_models(request: Request) -> Response:
    """The one model as a list, under each of its names; in Anthropic's form where its clients ask.

    Raises:
        EngineNotReadyError: its name is not known before it is loaded.
    """
    app_state = app_state_of(request)
    app_state.check_ready()
    info, names = app_state.engine.info, app_state.model_names
    if _is_anthropics(request):
        models = [_anthropic_model(info, name) for name in names]
        page = AnthropicModelList(data=models, has_more=False, first_id=names[0], last_id=names[-1])
        return json_response(page)
    return json_response(ModelList(object="list", data=[_model(info, name) for name in names]))


async def retrieve_model(request: Request) -> Response:
    """The one model, if that is one of its names; a name may hold slashes, as OWNER/NAME.

    No name at all, ``/v1/models/``, asks for the list.

    Raises:
        EngineNotReadyError: its name is not known before it is loaded.
        ApiError: 404, another name.
    """
    if not request.path_params["model"]:
        return await list_models(request)
    app_state = app_state_of(request)
    app_state.check_ready()
    info, name = app_state.engine.info, app_state.served_name(request.path_params["model"])
    return json_response(_anthropic_model(info, name) if _is_anthropics(request) else _model(info, name))


def _is_anthropics(request: Request) -> bool:
    """Both APIs have the same paths here; the header stands in every request of Anthropic's clients."""
    return ANTHROPIC_VERSION in request.headers


def _model(info: ModelInfo, name: str) -> ModelCard:
    return ModelCard(
        id=name,
        object="model",
        created=info.created,
        owned_by=info.owned_by,
        max_model_len=info.max_model_len,
        quantization=info.quantization,
        dtype=info.dtype,
        is_instruction_tuned=info.is_instruction_tuned,
    )


def _anthropic_model(info: ModelInfo, name: str) -> AnthropicModel:
    return AnthropicModel(
        id=name,
        type="model",
        display_name=name,
        created_at=datetime.fromtimestamp(info.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lifecycle="active",
        max_input_tokens=info.max_model_len,
        max_tokens=info.max_model_len,
    )


async def capabilities(_request: Request) -> Response:
    """The table of fields as JSON: endpoint -> ``exact``, ``no_effect`` or ``refused`` -> field ->
    note.
    """
    return Response(_capabilities(), media_type="application/json")


@cache
def _capabilities() -> bytes:
    endpoints = {endpoint: _by_support(fields) for endpoint, fields in FIELDS_BY_ENDPOINT.items()}
    neutral = {name: in_words(values) for name, values in IN_ANY_REQUEST.items()}
    answer = CapabilitiesAnswer(object="capabilities", endpoints=endpoints, neutral_values=neutral)
    return bytes(json_response(answer).body)


def _by_support(fields: tuple[RequestField, ...]) -> dict[str, dict[str, str]]:
    return {
        support.value: {field.name: field.note for field in fields if field.support is support} for support in Support
    }
