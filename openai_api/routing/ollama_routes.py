"""The rows of Ollama's API in the table of endpoints.

Owns their paths, methods and errors. Knows nothing of how they are served. Constants.
"""

from openai_api.answer.ollama_models import (
    ListedModels,
    OllamaChatAnswer,
    OllamaGenerateAnswer,
    PullStatus,
    RunningModels,
    ShownModel,
)
from openai_api.answer.server_models import VersionAnswer
from openai_api.endpoints.ollama import ollama_chat, ollama_generate
from openai_api.endpoints.ollama_models import (
    list_running,
    list_tags,
    ollama_version,
    pull_model,
    refuse_change,
    refuse_embedding,
    show_model,
)
from openai_api.request.ollama_fields import OllamaChatRequest, OllamaGenerateRequest, PullRequest, ShowRequest
from openai_api.routing.route import BODY, GENERATION, MODEL, Route

LINES = "application/x-ndjson"
REFUSED = (400, 415, *MODEL)

OLLAMA_ROUTES = (
    Route(
        path="/api/chat",
        serve=ollama_chat,
        body=OllamaChatRequest,
        answer=OllamaChatAnswer,
        streams=LINES,
        errors=GENERATION,
    ),
    Route(
        path="/api/generate",
        serve=ollama_generate,
        body=OllamaGenerateRequest,
        answer=OllamaGenerateAnswer,
        streams=LINES,
        errors=GENERATION,
    ),
    Route(path="/api/tags", serve=list_tags, answer=ListedModels, errors=MODEL),
    Route(path="/api/ps", serve=list_running, answer=RunningModels, errors=MODEL),
    Route(path="/api/version", serve=ollama_version, answer=VersionAnswer, errors=MODEL),
    Route(path="/api/show", serve=show_model, body=ShowRequest, answer=ShownModel, errors=BODY),
    Route(path="/api/pull", serve=pull_model, body=PullRequest, answer=PullStatus, streams=LINES, errors=BODY),
    *(
        Route(path=f"/api/{name}", verb="POST", serve=refuse_change, errors=REFUSED)
        for name in ("push", "create", "copy")
    ),
    Route(path="/api/delete", verb="DELETE", serve=refuse_change, errors=REFUSED),
    *(
        Route(path=f"/api/{name}", verb="POST", serve=refuse_embedding, errors=REFUSED)
        for name in ("embed", "embeddings")
    ),
)
