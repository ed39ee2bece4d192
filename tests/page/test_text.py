"""*Text* in a real browser, with an engine whose tokens are bytes and whose likelihoods are known."""

import threading
from typing import TYPE_CHECKING

from engine.errors import QueueFullError
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer, wait_until
from tests.page.browsing import announced, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BOS_ID = 2


def ask(page: "Page", prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.keyboard.press("Control+Enter")


def wait_for_the_end(page: "Page") -> None:
    page.locator(".summary:not(:empty)").wait_for()


def complete(page: "Page", prompt: str) -> None:
    ask(page, prompt)
    wait_for_the_end(page)


def tokens(page: "Page") -> list[str]:
    return page.locator(".tokens .token").all_inner_texts()


def test_tokens_of_prompt_and_answer_are_shown(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    middle = threading.Event()
    engine.script = Script(text="xyz\n \u20ac", tokens_per_output=2, num_cached_tokens=1, hold=middle)
    with visit(browser, live.url, "text") as page:
        ask(page, "ab")
        page.locator(".token", has_text="y").wait_for()
        assert "<eos>" not in tokens(page)
        middle.set()
        wait_for_the_end(page)
        assert tokens(page) == ["<bos>", "a", "b", "x", "y", "z", "\u21b5", "\u2423", *"\ufffd\ufffd\ufffd", "<eos>"]
        assert page.locator(".token.of-prompt").all_inner_texts() == ["<bos>", "a", "b"]
        assert page.locator(".token.special").all_inner_texts() == ["<bos>", "<eos>"]
        assert page.locator(".token.pnone").all_inner_texts() == ["<bos>"]
        summary = page.locator(".summary").inner_text()
        assert "1 of 3 prompt tokens from the cache" in summary
        assert "4 tokens came as drafts" in summary
        assert "ended with stop" in summary
        announced(page, summary)


def test_alternatives_on_hover_and_on_focus(browser: "Browser", live: LiveServer) -> None:
    with visit(browser, live.url, "text") as page:
        complete(page, "ab")
        popup = page.locator(".popup")
        page.locator(".token").nth(4).hover()
        popup.wait_for()
        assert popup.locator("li").count() == 8
        page.get_by_label("Prompt", exact=True).hover()
        popup.wait_for(state="hidden")
        page.locator(".token").first.focus()
        page.keyboard.press("ArrowRight")
        popup.wait_for()
        assert page.evaluate("document.activeElement.dataset.at") == "1"
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.closest('.popup') !== null")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.dataset.at") == "1"


def test_an_alternative_is_a_way_on_and_back(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    with visit(browser, live.url, "text") as page:
        complete(page, "ab")
        before, first = tokens(page), engine.calls[-1]
        assert first.params.prompt_logprobs is not None
        page.locator(".token").nth(4).click()
        page.locator(".popup button:not([aria-current])").first.click()
        page.get_by_role("button", name="Back to before").wait_for()
        wait_until(lambda: len(engine.calls) == 2)
        wait_for_the_end(page)
        branch = engine.calls[-1]
        assert branch.prompt_token_ids[:4] == (
            *first.prompt_token_ids,
            *engine.tokenizer.encode(engine.script.text)[:1],
        )
        assert len(branch.prompt_token_ids) == 5
        assert branch.params.prompt_logprobs is None  # what is known is not computed again
        assert tokens(page)[:4] == before[:4] != tokens(page)[1:5]
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.at") == "5"  # the keyboard stays where it was
        page.get_by_role("button", name="Back to before").click()
        page.locator(".tokens .token", has_text=before[4]).nth(0).wait_for()
        wait_until(lambda: tokens(page) == before)


def test_an_error_is_shown(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(fail=QueueFullError("Too many <b>requests</b>.", retry_after_s=1), fail_at=0)
    with visit(browser, live.url, "text", expected="status of 429") as page:
        page.get_by_role("button", name="Complete").click()
        page.get_by_text("Too many <b>requests</b>.").first.wait_for()
        page.get_by_role("button", name="Complete", disabled=False).wait_for()
