"""The page with the real model, as a person meets it: started by hand, stopped, started again. No scripted answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.openai_api.real_server import RealServer, real_server, start_server
from tests.page.browsing import num_lengths, record_lengths, visit
from tests.page.test_chat import said, say
from tests.page.test_text import complete, tokens

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = ("--served-model-name", "gemma-3-270m", "--max-model-len", "4096")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(embedded_gguf: Path) -> Iterator[RealServer]:
    with real_server(*FLAGS) as live:
        yield live


def set_greedy(page: "Page") -> None:
    page.get_by_text("Sampling settings").click()
    page.get_by_label("Temperature").fill("0")


def test_chat_streams_stops_and_regenerates(browser: "Browser", server: RealServer) -> None:
    with visit(browser, server.url) as page:
        page.get_by_text("not tuned to follow instructions").wait_for()
        page.get_by_text("System text, length, export").click()
        page.get_by_label("At most so many tokens").fill("24")
        set_greedy(page)
        record_lengths(page, ".message.assistant .body")
        say(page, "Name the days of the week.")
        answer = said(page)
        assert num_lengths(page) > 5
        page.get_by_role("button", name="Regenerate").click()
        page.locator("[aria-busy=true]").wait_for(state="detached")
        assert said(page) == answer  # temperature 0
        page.get_by_label("At most so many tokens").fill("2000")
        say(page, "And the months, twice.")
        page.wait_for_timeout(300)
        page.keyboard.press("Escape")
        assert said(page).endswith("Stopped.") or "tokens/s" in page.locator(".actions small").last.inner_text()


def test_a_branch_is_what_the_model_says_of_that_prompt(browser: "Browser", server: RealServer) -> None:
    with visit(browser, server.url, "text") as page:
        set_greedy(page)
        page.get_by_label("At most so many tokens").fill("12")
        record_lengths(page, ".tokens")
        complete(page, "The capital of France is")
        assert num_lengths(page) > 3
        first = tokens(page)
        assert first[:6] == ["<bos>", "The", " capital", " of", " France", " is"]
        page.locator(".tokens .token").nth(6).focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        chosen = page.evaluate("document.activeElement.querySelector('.token-text').textContent")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Back to before").wait_for()
        page.locator(".summary:not(:empty)").wait_for()
        branch = tokens(page)
        assert branch[:7] == [*first[:6], chosen] != first[:7]
        complete(page, "".join(branch[1:7]))
        assert tokens(page) == branch  # the same prompt, typed


def test_a_restart_is_survived(browser: "Browser", embedded_gguf: Path) -> None:
    server = start_server(*FLAGS)
    port = server.url.rpartition(":")[2]
    try:
        with visit(browser, server.url, expected="ERR_|status of 503") as page:
            say(page, "Count from one to a thousand, in words, slowly.")
            page.locator(".message.assistant").wait_for()
            server.kill()
            page.get_by_text("The server does not answer.").first.wait_for()
            server = start_server(*FLAGS, "--port", port)
            page.locator("#banner").wait_for(state="hidden")
            page.get_by_role("button", name="Regenerate").click()
            page.locator(".message.assistant[aria-busy=true] .body:not(.busy)").wait_for()
            page.keyboard.press("Escape")
            assert "does not answer" not in said(page)
    finally:
        server.kill()
