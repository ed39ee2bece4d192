"""What Ollama's API tells of models, and what it asks to be done with them: ``/api/tags``, ``/api/ps``,
``/api/show``, ``/api/pull``, ``/api/version``, and the refusals of all that changes models.

Owns Ollama's way to describe the one model. Reads plain values of the engine and never asks it to
compute. Runs on the event loop.
"""

from typing import NoReturn, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from engine.engine_info import ModelInfo
from openai_api.answer.models import json_response
from openai_api.answer.ollama_models import (
    ListedModel,
    ListedModels,
    ModelDetails,
    PullStatus,
    RunningModel,
    RunningModels,
    ShownModel,
)
from openai_api.answer.ollama_writer import JSON_LINES, rfc3339
from openai_api.answer.server_models import VersionAnswer
from openai_api.app_state import app_state_of, caller_of
from openai_api.errors import ApiError
from openai_api.model_names import with_tag
from openai_api.request.body import read_body
from openai_api.request.content_type import check_content_type
from openai_api.request.ollama_fields import NamedModelRequest, PullRequest, ShowRequest
from openai_api.request.ollama_notes import PULL_FIELDS, SHOW_FIELDS
from openai_api.request.request_field import RequestField

# The API that is spoken here; clients compare it with the first version that has what they need.
OLLAMA_VERSION = "0.12.11"
_NEVER = "2999-12-31T23:59:59Z"
_FAMILY = "gemma3"
_LICENSE = "Gemma Terms of Use: https://ai.google.dev/gemma/terms"

M = TypeVar("M", bound=NamedModelRequest)


async def ollama_version(_request: Request) -> Response:
    """The version of Ollama whose API this is, also while the model loads."""
    return json_response(VersionAnswer(version=OLLAMA_VERSION))


async def list_tags(request: Request) -> Response:
    """The one model, once under each of its names.

    Raises:
        EngineNotReadyError: its name is not known before it is loaded.
    """
    app_state = app_state_of(request)
    app_state.check_ready()
    info = app_state.engine.info
    return json_response(ListedModels(models=[_listed(info, with_tag(name)) for name in app_state.model_names]))


async def list_running(request: Request) -> Response:
    """The same, as it is in memory, where it stays.

    Raises:
        EngineNotReadyError: as ``list_tags``.
    """
    app_state = app_state_of(request)
    app_state.check_ready()
    info = app_state.engine.info
    return json_response(RunningModels(models=[_running(info, with_tag(name)) for name in app_state.model_names]))


async def show_model(request: Request) -> Response:
    """Everything about the model that Ollama would tell.

    Raises:
        ApiError: a wrong body, or another model's name.
        EngineNotReadyError: while loading, draining or dead.
    """
    await _read(request, ShowRequest, SHOW_FIELDS)
    app_state = app_state_of(request)
    return json_response(_shown(app_state.engine.info, app_state.model_names[0]))


async def pull_model(request: Request) -> Response:
    """The served model is there already.

    Raises:
        ApiError: a wrong body; 404, another model.
        EngineNotReadyError: while loading, draining or dead.
    """
    body = await _read(request, PullRequest, PULL_FIELDS)
    done = json_response(PullStatus(status="success"))
    if not body.stream:
        return done
    begun = PullStatus(status="pulling manifest").model_dump_json().encode()
    return Response(b"%s\n%s\n" % (begun, done.body), media_type=JSON_LINES.media_type.decode())


async def refuse_embedding(request: Request) -> Response:
    """Raises: ApiError 400, or 415 for what is not JSON."""
    _refuse(request, "This server makes no embeddings: its model only generates text.")


async def refuse_change(request: Request) -> Response:
    """Raises: ApiError 400, or 415 for what is not JSON."""
    _refuse(request, "This server has the one model that it was started with; models are not changed over HTTP.")


def _refuse(request: Request, message: str) -> NoReturn:
    check_content_type(request.headers)
    raise ApiError(400, message, code="unsupported_endpoint")


async def _read(request: Request, model: type[M], fields: tuple[RequestField, ...]) -> M:
    app_state = app_state_of(request)
    app_state.check_ready()
    with app_state.body_budget.share(caller_of(request)) as share:
        body = await read_body(request, model, fields=fields, app_state=app_state, share=share)
        app_state.served_name(body.named)
        return body


def _details(info: ModelInfo) -> ModelDetails:
    return ModelDetails(
        parent_model="",
        format=info.weights.file_format,
        family=_FAMILY,
        families=[_FAMILY],
        parameter_size=f"{info.weights.num_parameters / 1e6:.2f}M",
        quantization_level=info.quantization,
    )


def _listed(info: ModelInfo, name: str) -> ListedModel:
    return ListedModel(
        name=name,
        model=name,
        modified_at=rfc3339(info.created),
        size=info.weights.num_bytes,
        digest=info.weights.sha256,
        details=_details(info),
    )


def _running(info: ModelInfo, name: str) -> RunningModel:
    weights = info.weights
    return RunningModel(
        name=name,
        model=name,
        size=weights.num_bytes,
        digest=weights.sha256,
        details=_details(info),
        expires_at=_NEVER,
        size_vram=0 if weights.device == "cpu" else weights.num_bytes,
        context_length=info.max_model_len,
    )


def _shown(info: ModelInfo, name: str) -> ShownModel:
    settings = dict(info.default_sampling)
    return ShownModel(
        license=_LICENSE,
        modelfile="\n".join([f"FROM {name}", *(f"PARAMETER {key} {value}" for key, value in settings.items())]),
        parameters="\n".join(f"{key} {value}" for key, value in settings.items()),
        template=info.chat_template or "",
        details=_details(info),
        model_info={
            "general.architecture": _FAMILY,
            "general.basename": name,
            "general.parameter_count": info.weights.num_parameters,
            f"{_FAMILY}.context_length": info.max_model_len,
            f"{_FAMILY}.vocab_size": info.vocab_size,
            **{f"{_FAMILY}.{key}": value for key, value in info.weights.shape.items()},
        },
        capabilities=["completion", "tools"],
        modified_at=rfc3339(info.created),
    )
