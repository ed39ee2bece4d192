"""Every test gets its own engine and application. A live server is shared: it gets the engine of the running test."""

from collections.abc import Iterator

import pytest

from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import Asgi, LiveServer, SharedServer, shared_server


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
