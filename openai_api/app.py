"""The ASGI application: routes, error handlers, middleware and the life of the engine, put
together.

Owns the order of the layers and when the engine starts and ends; knows no endpoint, no flag and no
socket. Runs on the event loop, which it shares with every request.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.types import Scope

from openai_api.app_state import AppState, new_app_state
from openai_api.batch.service import BatchService
from openai_api.engine_api import Engine
from openai_api.errors import install_error_handlers
from openai_api.logs import log_event, where_it_failed
from openai_api.metrics import Metrics
from openai_api.response_store import MemoryStore, ResponseStore
from openai_api.routing.routes import add_routes
from openai_api.routing.unknown_paths import answer_unknown_path
from openai_api.settings import ServerSettings
from openai_api.transport.access import AccessControl
from openai_api.transport.cors import AllowedOrigins, CorsHeaders
from openai_api.transport.hosts import HostRule
from openai_api.transport.request_context import Exchange, RequestContext

API_VERSION = "1"


def log_outcome(error: Exception | None) -> None:
    """Log an error of loading: its type and lines of code, never its text, which may have a path in
    it.
    """
    if error is not None:
        log_event(logging.ERROR, "load_failed", where_it_failed(error))


def create_app(
    engine: Engine,
    settings: ServerSettings,
    *,
    on_loaded: Callable[[Exception | None], None] = log_outcome,
    on_request_end: Callable[[Scope, Exchange], None] | None = None,
) -> FastAPI:
    """The app that serves ``engine``, which it starts and shuts down with itself.

    The engine loads in the background: the app answers at once, ``/health`` when it is ready.
    ``on_loaded`` is called on the event loop, with the error if there was one; so is
    ``on_request_end``, behind each request.

    Raises:
        OptionError: ``settings.data_dir`` cannot be used.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        loading = asyncio.create_task(_load(engine, on_loaded, metrics))
        if batches is not None:
            batches.start()
        try:
            yield
        finally:
            loading.cancel()
            if batches is not None:
                await batches.stop()
            await engine.shutdown()
            await responses.close()

    # No documentation pages: theirs load scripts from elsewhere. No redirects: they would lose a
    # request's body. No telemetry of FastAPI's own, which has paths and the texts of errors in it.
    app = FastAPI(
        title="Gemma 3 270M",
        version=API_VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        lifespan=lifespan,
    )
    responses = _response_store(settings)
    app_state = app.state.app_state = new_app_state(engine, settings, responses)
    metrics = app_state.metrics
    batches = app.state.batches = _batch_service(app_state)
    add_routes(app)
    install_error_handlers(app, retry_after_s=settings.retry_after_s)
    app.add_exception_handler(404, answer_unknown_path)
    _add_layers(app, settings, metrics, on_request_end=on_request_end)
    return app


def _response_store(settings: ServerSettings) -> ResponseStore:
    if settings.data_dir is None:
        return MemoryStore(max_responses=settings.max_stored_responses, max_bytes=settings.max_stored_bytes)
    from openai_api.response_database import ResponseDatabase  # sqlite3, for those who want it

    return ResponseDatabase(settings.data_dir, max_bytes=settings.max_stored_bytes_on_disk)


def _batch_service(app_state: AppState) -> BatchService | None:
    """``None`` without a folder, in which nobody else is once the responses have been opened there."""
    if app_state.settings.data_dir is None:
        return None
    return BatchService(Path(app_state.settings.data_dir), app_state)


def _add_layers(
    app: FastAPI,
    settings: ServerSettings,
    metrics: Metrics,
    *,
    on_request_end: Callable[[Scope, Exchange], None] | None,
) -> None:
    """From the innermost to the outermost: each is added around those before it."""
    hosts, origins = HostRule(settings), AllowedOrigins(settings.allowed_origins)
    app.add_middleware(AccessControl, hosts=hosts, origins=origins, api_keys=settings.api_keys)
    app.add_middleware(RequestContext, metrics=metrics, on_end=on_request_end)
    if settings.allowed_origins:
        app.add_middleware(CorsHeaders, origins=origins)


async def _load(engine: Engine, on_loaded: Callable[[Exception | None], None], metrics: Metrics) -> None:
    try:
        await engine.start()
    except Exception as error:
        on_loaded(error)
    else:
        metrics.show_cache_config(engine.info.cache_config)
        on_loaded(None)
