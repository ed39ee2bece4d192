"""``python -m openai_api.run``: the server as a program.

Owns the order of start and end, signals and the exit status; knows no route and no request. The
sockets are bound first and answer at once; the model loads behind it. The first signal to end
drains: new requests get 503, running ones finish or are ended at the deadline. A second signal ends
the process at once. Main thread, and from ``ServerProcess.run`` on its event loop.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While the rest is imported, Ctrl-C ends the process at once; then it is an exception again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from engine.terminal.guard import WRONG_USE, is_for_a_person, reason, run_guarded, say, write_output
from gemma3.progress import loading_news
from openai_api.access_flags import exposed_keys, settings_from
from openai_api.app import create_app
from openai_api.command_line import PROGRAM, engine_options, parse_flags
from openai_api.engine_api import Engine
from openai_api.logs import configure_logging, log_event, where_it_failed
from openai_api.open_files import within_file_limit
from openai_api.optional_tracing import open_tracing
from openai_api.settings import ServerSettings
from openai_api.signals import ending_signals, is_hangup
from openai_api.sockets import Listeners, listen_on_path, listen_on_port
from openai_api.transport.http_limits import guarded_protocol

if TYPE_CHECKING:
    from openai_api.tracing import Tracing

# After the drain the last bytes still have to reach the clients.
CLOSE_TIMEOUT_S = 5
# Connections that asyncio takes at once; those behind them wait in the system's queue.
ACCEPT_BATCH = 32
MAX_PENDING_CONNECTIONS = 2048


def build_engine(flags: argparse.Namespace) -> Engine:
    """The engine that the flags ask for.

    Whether the weights fit is found by its ``start``.

    Raises:
        ValueError: the options exclude each other.
    """
    from engine.async_engine import AsyncLLMEngine
    from engine.capacity import prefill_chunk_tokens

    options = engine_options(flags)
    prefill_chunk_tokens(options)
    return AsyncLLMEngine.from_options(options, progress=loading_news())


def main(
    argv: Sequence[str] | None = None,
    *,
    program: str = PROGRAM,
    engine_builder: Callable[[argparse.Namespace], Engine] = build_engine,
) -> int:
    """The exit status: 0 after a drain, 2 if the options or the model cannot be used, 1 if anything
    else failed. ``program`` is its name in the words of help and errors.
    """
    return run_guarded(program, lambda: _serve(argv, program, engine_builder))


def _serve(argv: Sequence[str] | None, program: str, engine_builder: Callable[[argparse.Namespace], Engine]) -> int:
    flags = parse_flags(argv, program=program)
    settings = settings_from(flags, os.environ)
    listeners = listen_on_port(flags.host, flags.port) if flags.uds is None else listen_on_path(flags.uds)
    configure_logging(flags.log_level)
    for event, advice in exposed_keys(flags).items():
        log_event(logging.WARNING, event, {"advice": advice})
    try:
        tracing = open_tracing(flags.otlp_traces_endpoint)
        process = ServerProcess(
            engine_builder(flags), within_file_limit(settings), listeners, program=program, tracing=tracing
        )
        status = process.run()
    finally:
        listeners.close()
        if flags.uds is not None:
            with suppress(FileNotFoundError):
                os.unlink(flags.uds)
    if process.is_loading:
        # The interpreter would be taken apart under the thread that loads, and abort.
        os._exit(status)
    return status


def server_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """uvicorn with our limits and without its own logs, headers and trust in proxies."""
    return uvicorn.Config(
        app,
        http=guarded_protocol(settings),
        loop="asyncio",  # what our transport was written for, also where another package brought uvloop
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=ACCEPT_BATCH,
        timeout_keep_alive=settings.idle_timeout_s,
        timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
    )


class HttpServer(uvicorn.Server):
    """uvicorn would stop listening at the first signal, and end with the signal instead of an exit
    status. ``on_listening`` is called when every socket takes connections.
    """

    def __init__(self, config: uvicorn.Config, *, on_listening: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: ``ServerProcess`` has handlers of its own."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Let more connections wait than are taken at once; asyncio has one number for both."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(MAX_PENDING_CONNECTIONS)
        self._on_listening()


class ServerProcess:
    """One run of the server, from loading to the end. Mutable; on the event loop of ``run``."""

    def __init__(
        self,
        engine: Engine,
        settings: ServerSettings,
        listeners: Listeners,
        *,
        program: str = PROGRAM,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.program = program
        self.engine = engine
        self.settings = settings
        self.listeners = listeners
        self.exit_status = 0
        self.is_loading = True
        self.tracing = tracing
        self.draining: asyncio.Task[None] | None = None
        on_request_end = None if tracing is None else tracing.record
        app = create_app(engine, settings, on_loaded=self._on_loaded, on_request_end=on_request_end)
        self.server = HttpServer(server_config(app, settings), on_listening=self._on_listening)

    def run(self) -> int:
        """Serve until a signal or a failed load; the exit status: 0, 1 or 2."""
        with asyncio.Runner(loop_factory=self.server.config.get_loop_factory()) as runner:
            runner.run(self._serve())
        if self.tracing is not None:
            self.tracing.close()
        return self.exit_status

    async def _serve(self) -> None:
        watching = asyncio.create_task(self._end_when_the_engine_has_failed())
        with ending_signals(self._on_signal):
            await self.server.serve(sockets=list(self.listeners.sockets))
        watching.cancel()
        log_event(logging.INFO, "stopped", {"exit_status": self.exit_status})
        gc.unfreeze()  # else the core is found alive at the very end, and says so in twenty lines

    async def _end_when_the_engine_has_failed(self) -> None:
        """A supervisor starts a process that has ended; one that answers nothing it leaves alone."""
        await self.engine.failed()
        if self.draining is None:
            log_event(logging.ERROR, "engine_failed", {})
            self.exit_status = 1
            self.server.should_exit = True

    def _on_listening(self) -> None:
        log_event(logging.INFO, "listening", {"address": self.listeners.url})

    def _on_signal(self, number: signal.Signals) -> None:
        if self.draining is not None:
            if is_hangup(number):
                return
            os._exit(128 + number)
        log_event(logging.INFO, "draining", {"signal": number.name})
        self.draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self.engine.drain(self.settings.drain_timeout_s)
        finally:
            self.server.should_exit = True

    def _on_loaded(self, error: Exception | None) -> None:
        self.is_loading = False
        if error is None:
            # What is there now stays: later collections of garbage, which keep all threads waiting, leave it out.
            gc.freeze()
            if self.draining is None:
                self._say_ready()
            return
        if is_for_a_person(error):
            say(f"{self.program}: error: {reason(error)}")
            self.exit_status = WRONG_USE
        else:
            self.exit_status = 1
            log_event(logging.ERROR, "load_failed", where_it_failed(error))
        self.server.should_exit = True

    def _say_ready(self) -> None:
        try:
            write_output(f"Ready: {self.engine.info.model_id} at {self.listeners.url}\n")
        except OSError as error:  # nobody reads it, or a disk is full: no reason to serve nobody
            log_event(logging.WARNING, "ready_line_not_written", {"reason": error.strerror})


if __name__ == "__main__":
    sys.exit(main())
