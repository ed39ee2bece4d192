"""``python -m openai_api.run``: the server as a program.

Owns the order of start and end, signals and the exit status; knows no route and no request. The
socket is bound first and answers at once; the model loads behind it. The first SIGTERM or SIGINT
drains: new requests get 503, running ones finish or are ended at the deadline. A second signal ends
the process at once. Main thread, and from ``ServerProcess.run`` on its event loop.
"""

import argparse
import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

from openai_api.app import create_app
from openai_api.command_line import engine_options, parse_flags, settings_from
from openai_api.engine_api import Engine
from openai_api.logs import configure_logging, log_event, where_it_failed
from openai_api.settings import ServerSettings
from openai_api.sockets import listen_on_path, listen_on_port, url_of
from openai_api.transport.http_limits import guarded_protocol

# After the drain the last bytes still have to reach the clients.
CLOSE_TIMEOUT_S = 5
SPARE_FILES = 256


def build_engine(flags: argparse.Namespace) -> Engine:
    """The engine that the flags ask for.

    Whether weights and options fit is found by its ``start``, as a ValueError.
    """
    from engine.async_engine import AsyncLLMEngine

    return AsyncLLMEngine.from_options(engine_options(flags))


def main(
    argv: Sequence[str] | None = None, *, engine_builder: Callable[[argparse.Namespace], Engine] = build_engine
) -> int:
    """The exit status: 0 after a drain, 2 if the options or the model cannot be used, 1 if anything
    else failed.
    """
    flags = parse_flags(argv)
    try:
        settings = settings_from(flags, os.environ)
        listener = listen_on_path(flags.uds) if flags.uds else listen_on_port(flags.host, flags.port)
        configure_logging(flags.log_level)
        engine = engine_builder(flags)
    except ValueError as error:
        return _fail(error)
    _allow_open_files(settings.max_connections + SPARE_FILES)
    try:
        return ServerProcess(engine, settings, listener).run()
    finally:
        if flags.uds:
            with suppress(FileNotFoundError):
                os.unlink(flags.uds)


def _fail(error: Exception) -> int:
    sys.stderr.write(f"openai_api.run: error: {error}\n")
    return 2


def _allow_open_files(num_files: int) -> None:
    """Many systems start programs with 1,024, which as many connections would use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        num_files = min(num_files, hard)
    if soft != resource.RLIM_INFINITY and soft < num_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, hard))


def server_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """uvicorn with our limits and without its own logs, headers and trust in proxies."""
    return uvicorn.Config(
        app,
        http=guarded_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.idle_timeout_s,
        timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
    )


class _Server(uvicorn.Server):
    """uvicorn would stop listening at the first signal, and end with the signal instead of an exit
    status.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: ``ServerProcess`` has handlers of its own."""
        yield


class ServerProcess:
    """One run of the server, from loading to the end. Mutable; on the event loop of ``run``."""

    def __init__(self, engine: Engine, settings: ServerSettings, listener: socket.socket) -> None:
        self.engine = engine
        self.settings = settings
        self.listener = listener
        self.exit_status = 0
        self.draining: asyncio.Task[None] | None = None
        self.server = _Server(server_config(create_app(engine, settings, on_loaded=self._on_loaded), settings))

    def run(self) -> int:
        """Serve until a signal or a failed load; the exit status: 0, 1 or 2."""
        with asyncio.Runner(loop_factory=self.server.config.get_loop_factory()) as runner:
            runner.run(self._serve())
        return self.exit_status

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        log_event(logging.INFO, "listening", {"address": url_of(self.listener)})
        watching = asyncio.create_task(self._end_when_the_engine_has_failed())
        await self.server.serve(sockets=[self.listener])
        watching.cancel()
        log_event(logging.INFO, "stopped", {"exit_status": self.exit_status})

    async def _end_when_the_engine_has_failed(self) -> None:
        """A supervisor starts a process that has ended; one that answers nothing it leaves alone."""
        await self.engine.failed()
        if self.draining is None:
            log_event(logging.ERROR, "engine_failed", {})
            self.exit_status = 1
            self.server.should_exit = True

    def _on_signal(self, number: signal.Signals) -> None:
        if self.draining is not None:
            os._exit(128 + number)
        log_event(logging.INFO, "draining", {"signal": number.name})
        self.draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self.engine.drain(self.settings.drain_timeout_s)
        finally:
            self.server.should_exit = True

    def _on_loaded(self, error: Exception | None) -> None:
        if error is None:
            if self.draining is None:
                sys.stdout.write(f"Ready: {self.engine.info.model_id} at {url_of(self.listener)}\n")
                sys.stdout.flush()
            return
        if isinstance(error, ValueError):  # what a caller can put right, and it says how
            self.exit_status = _fail(error)
        else:
            self.exit_status = 1
            log_event(logging.ERROR, "load_failed", where_it_failed(error))
        self.server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
