"""Every test gets its own engine and application. A live server is shared: it gets the engine of the running test."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import Asgi, LiveServer, SharedServer, shared_server
from tests.openai_api.real_server import RealServer, real_server


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def asgi(engine: FakeEngine) -> Asgi:
    return Asgi(engine, ServerSettings())


@pytest.fixture(scope="session")
def default_server() -> Iterator[SharedServer]:
    with shared_server(ServerSettings()) as server:
        yield server


@pytest.fixture
def live(default_server: SharedServer, engine: FakeEngine) -> LiveServer:
    return default_server.use(engine)


@pytest.fixture(scope="session")
def server(embedded_gguf: Path) -> Iterator[RealServer]:
    """The real base model, served as a person would, to the modules that start no server of their own."""
    with real_server("--served-model-name", "gemma-3-270m", "--max-model-len", "4096") as live:
        yield live


@pytest.fixture
def event_loop_of_clients() -> Iterator[None]:
    """Some clients make an event loop for this thread and leave it; collected later, it would warn in some other test."""
    yield
    with warnings.catch_warnings(), suppress(RuntimeError):  # there is none
        warnings.simplefilter("ignore")  # newer Pythons would rather not be asked
        asyncio.get_event_loop_policy().get_event_loop().close()
    asyncio.set_event_loop(None)
    gc.collect()
