"""Every view by axe-core's rules, in light and dark, and at the width of a phone: no serious finding."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer, live_server
from tests.openai_api.npm import with_packages
from tests.page.browsing import visit
from tests.page.test_batches import lines, row, start
from tests.page.test_chat import MARKDOWN, said, say
from tests.page.test_shapes import ask
from tests.page.test_text import complete

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SOURCES = Path(__file__).parent / "axe"
VIEWS = ("chat", "text", "shapes", "server", "connect")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The rules as one script."""
    folder = with_packages(SOURCES, tmp_path_factory.mktemp("axe"))
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


def findings(page: "Page", axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']} {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def fill(page: "Page", view: str) -> None:
    if view == "chat":
        say(page, "Show all")
        said(page)
    if view == "text":
        complete(page, "ab")
        page.locator(".token").nth(3).focus()
        page.locator(".popup").wait_for()
    if view == "shapes":
        ask(page)
    for each in page.locator("summary:visible").all():
        each.click()
    page.wait_for_timeout(300)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.parametrize("view", VIEWS)
def test_no_serious_finding(
    browser: "Browser", live: LiveServer, engine: FakeEngine, axe: str, *, view: str, scheme: str, width: int
) -> None:
    engine.script = Script(text=MARKDOWN, forced=bytes([1, 0] * 20))
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with visit(browser, live.url, view, bypass_csp=True, **look) as page:
        page.locator(f".view.{view}").wait_for()
        fill(page, view)
        assert findings(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_decisions_and_their_programs(
    browser: "Browser", live: LiveServer, axe: str, *, scheme: str, width: int
) -> None:
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with visit(browser, live.url, "shapes", bypass_csp=True, **look) as page:
        page.get_by_label("Start from an example").select_option("Where a letter belongs, as decisions")
        ask(page)
        assert findings(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Show as", exact=True).click()
        assert findings(page, axe) == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_jobs(browser: "Browser", engine: FakeEngine, axe: str, tmp_path: Path, *, scheme: str, width: int) -> None:
    """One that has ended, one that failed, one that runs, and a form with something wrong in it."""
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with (
        live_server(engine, ServerSettings(data_dir=str(tmp_path / "data"))) as live,
        visit(browser, live.url, "server", bypass_csp=True, **look) as page,
    ):
        start(page, lines(row(0), row(1, temperature=-1))).locator(".completed").wait_for()
        start(page, b"no JSON\n", "x" * 200).locator(".failed").wait_for()
        engine.script = Script(token_s=0.05)
        start(page, lines(*map(row, range(2000)))).get_by_text(" left").wait_for()
        page.get_by_role("button", name="Start", exact=True).click()
        page.get_by_text("Choose a file first.").wait_for()
        assert findings(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_key_dialog(browser: "Browser", live: LiveServer, axe: str) -> None:
    with visit(browser, live.url, bypass_csp=True) as page:
        page.get_by_role("button", name="Key").click()
        assert page.evaluate("document.activeElement.id") == "key-input"
        assert findings(page, axe) == []
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
