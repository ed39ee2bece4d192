"""A Chromium page that is watched: what it may never do is collected while a test drives it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

# Told on the console, which the watcher hears; a script that a hostile text brought in would call it too.
WATCH = """
addEventListener('securitypolicyviolation', (e) => console.error(`violates ${e.violatedDirective}: ${e.blockedURI}`));
window.alert = (words) => console.error(`alert: ${words}`);
"""


@contextmanager
def chromium() -> "Iterator[Browser]":
    """Headless, with a profile of its own that is gone afterwards. Skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Watched:
    """``expected``: what may stand on the console, as a regular expression."""

    page: "Page"
    url: str
    expected: str | None = None
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._on_request)

    def _on_console(self, message: Any) -> None:
        is_expected = self.expected is not None and re.search(self.expected, message.text)
        if message.type in {"error", "warning"} and not is_expected:
            self.problems.append(f"console: {message.text}")

    def _on_request(self, request: Any) -> None:
        self.requests.append(request.url)
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.problems.append(f"request: {request.url}")


@contextmanager
def visit(
    browser: "Browser", url: str, view: str = "", *, expected: str | None = None, **context: Any
) -> "Iterator[Page]":
    """The page at ``url`` in a profile of its own; at the end, no problems."""
    with browser.new_context(**{"reduced_motion": "reduce", **context}) as own:
        own.set_default_timeout(120_000)  # for what never happens: a busy machine may take long for anything
        own.add_init_script(WATCH)
        watched = Watched(own.new_page(), url, expected)
        watched.page.goto(f"{url}/#{view}")
        yield watched.page
        watched.page.evaluate("1")  # what the console has said by now has arrived
        assert watched.problems == []


def announced(page: "Page", words: str) -> None:
    """Wait until screen readers are told ``words``, which is a moment after the eye saw them."""
    page.locator("#live", has_text=words).wait_for(state="attached")


def record_lengths(page: "Page", selector: str) -> None:
    """Note each length that the text of an element has from now on."""
    page.evaluate(
        """(selector) => {
          window.lengths = new Set();
          const note = () => window.lengths.add(document.querySelector(selector)?.textContent.length ?? 0);
          new MutationObserver(note).observe(document.body, { subtree: true, childList: true });
        }""",
        selector,
    )


def num_lengths(page: "Page") -> int:
    """How many different lengths there were: a text that grows has many."""
    return int(page.evaluate("window.lengths.size"))
