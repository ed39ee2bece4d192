"""The server as a Ray Serve deployment: ``serve run deploy/ray_serve.yaml``.

Owns how our flags, readiness and end become Serve's; Serve owns replicas, routing and scaling. Knows
no route and no request. ``build_app`` runs once for a deployment, ``Replica`` in each process of one,
on the event loop that Serve gives it.
"""

import argparse
import asyncio
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr

from fastapi import FastAPI
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.terminal.guard import reason
from openai_api.access_flags import settings_from
from openai_api.app import create_app, log_outcome
from openai_api.command_line import parse_flags
from openai_api.logs import configure_logging
from openai_api.optional_tracing import open_tracing
from openai_api.run import build_engine
from openai_api.settings import OptionError, ServerSettings

PROGRAM = "ray_serve"
# A replica that is to go lets its requests end, and each does by its own deadline; then a little for the engine.
END_TIMEOUT_S = ServerSettings().request_timeout_s + 20
# Sequences that wait in the engine, for each that runs: its scheduler knows whose turn it is, a proxy does not.
ONGOING_PER_SEQUENCE = 2
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - nothing is bound to it
_OF_THE_PROXY = ("host", "port", "uds")


def build_app(args: Mapping[str, object]) -> serve.Application:
    """The application; ``args`` are the server's flags without their dashes.

    Raises:
        OptionError: a flag is wrong, or is not for Serve; one line names it.
    """
    flags = flags_from(args)
    of_serve = serve.deployment(
        name="Replica",
        ray_actor_options={"num_cpus": flags.threads},
        max_ongoing_requests=ONGOING_PER_SEQUENCE * flags.max_num_seqs,
        graceful_shutdown_timeout_s=END_TIMEOUT_S,
    )
    return of_serve(Replica).bind(flags)


def flags_from(args: Mapping[str, object]) -> argparse.Namespace:
    """The server's flags, checked by its own parser. ``host`` is open to others: who reaches the proxy is not known
    here.

    Raises:
        OptionError: as ``build_app``.
    """
    flags, defaults = _parsed(tuple(_words(args))), _parsed(())
    for name in _OF_THE_PROXY:
        if getattr(flags, name) != getattr(defaults, name):
            raise OptionError(f"{PROGRAM}: error: {name} is Ray Serve's: see http_options in the config file")
    if flags.threads is None:
        raise OptionError(f"{PROGRAM}: error: threads is missing: the number of cores of one replica, such as 2")
    if not (flags.allow_unauthenticated or settings_from(flags, os.environ).api_keys):
        raise OptionError(
            f"{PROGRAM}: error: others may reach Ray Serve's proxy: give api-key-file, the variable GEMMA3_API_KEY or "
            "'allow-unauthenticated: true'"
        )
    return argparse.Namespace(**{**vars(flags), "host": _ANY_ADDRESS})


def _words(args: Mapping[str, object]) -> Iterator[str]:
    """``{"threads": 2, "any-model-name": True}`` as a command line; ``False`` and ``None`` leave a flag out."""
    for name, value in args.items():
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                yield f"--{name}"
            elif each is not False and each is not None:
                yield f"--{name}={each}"


def _parsed(words: tuple[str, ...]) -> argparse.Namespace:
    """A parser ends the process, which here is one of Ray's, so that nobody would read why."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse_flags(words, program=PROGRAM)
    except SystemExit:
        why = said.getvalue().strip() or f"{PROGRAM}: error: {' '.join(words)} asks for no server"
        raise OptionError(why) from None


class WithoutRequestId:
    """Serve's proxy adds the id of a request, which the app has from it, to each answer: it would stand there twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self._app(scope, receive, send_without_id)


@serve.ingress()
class Replica:
    """One server with an engine of its own. Mutable; on the event loop of its process."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self._flags = flags
        self._loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tracing = open_tracing(flags.otlp_traces_endpoint)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve starts and ends the app's lifespan, and with it the engine."""
        configure_logging(self._flags.log_level)
        app = create_app(
            build_engine(self._flags),
            settings_from(self._flags, os.environ),
            on_loaded=self._on_loaded,
            on_request_end=None if self._tracing is None else self._tracing.record,
        )
        self._app_state = app.state.app_state
        app.add_middleware(WithoutRequestId)
        return app

    def _on_loaded(self, error: Exception | None) -> None:
        log_outcome(error)
        if error is None:
            self._loaded.set_result(None)
        else:
            self._loaded.set_exception(RuntimeError(f"{PROGRAM}: error: {reason(error)}"))

    async def check_health(self) -> None:
        """What ``/health`` says. Serve asks before it sends requests here, and then again and again: the first answer
        comes when the model is loaded.

        Raises:
            EngineNotReadyError: requests would not be served now.
            RuntimeError: the model cannot be loaded, and why.
        """
        await self._loaded
        self._app_state.check_ready()

    def __del__(self) -> None:
        """Serve calls it when the last request has ended and the engine is shut down."""
        if self._tracing is not None:
            self._tracing.close()
