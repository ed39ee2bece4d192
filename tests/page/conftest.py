"""One Chromium and one server with a scripted engine for all tests of the page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import LiveServer, SharedServer, shared_server
from tests.page.browsing import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="package")
def browser() -> "Iterator[Browser]":
    """Not beyond this folder: while it is there, Playwright's event loop runs, and ``asyncio.run`` is refused."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="session")
def page_server() -> Iterator[SharedServer]:
    with shared_server(ServerSettings()) as server:
        yield server


@pytest.fixture
def live(page_server: SharedServer, engine: FakeEngine) -> LiveServer:
    return page_server.use(engine)
