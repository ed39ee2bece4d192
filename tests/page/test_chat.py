"""*Chat* in a real browser, with an engine that says what it is told to."""

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine, Script
from tests.openai_api.harness import LiveServer, live_server, wait_until
from tests.page.browsing import announced, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

MARKDOWN = """# Title
A **bold** and *soft* `code` [link](https://example.org/a) [no](javascript:alert(1)) <b>not bold</b>

- one
  - within
- two

1. first

> said

```python
print("<i>")
```
"""


def say(page: "Page", text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answer_of(page: "Page") -> "Locator":
    return page.locator(".message.assistant[aria-busy=false] .body").last


def said(page: "Page") -> str:
    """The text of the last answer, once it has ended."""
    answer_of(page).wait_for()
    return answer_of(page).inner_text()


def asked(engine: FakeEngine) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in engine.rendered[-1]]


def test_an_answer_grows_and_is_kept(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    middle = threading.Event()
    engine.script = Script(text="one two three four five six", hold=middle, num_cached_tokens=3)
    with visit(browser, live.url) as page:
        say(page, "Count!")
        page.locator(".message.assistant[aria-busy=true] .body", has_text="one two three").wait_for()
        assert "six" not in page.locator(".message.assistant").inner_text()
        middle.set()
        assert said(page) == engine.script.text
        assert "3 of" in page.locator(".message.assistant .actions small").inner_text()
        announced(page, "one two three")
        page.reload()
        assert said(page) == engine.script.text
    assert asked(engine) == [("user", "Count!")]


def test_stop_regenerate_edit_and_another_chat(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(text="never " * 1000, token_s=0.02)
    with visit(browser, live.url) as page:
        say(page, "First")
        page.locator(".message").get_by_text("never").wait_for()
        page.keyboard.press("Escape")
        assert said(page).endswith("Stopped.")
        wait_until(lambda: len(engine.aborted) == 1)
        engine.script = Script(text="Second answer")
        page.get_by_role("button", name="Regenerate").click()
        page.locator(".message").get_by_text("Second answer").wait_for()
        assert asked(engine) == [("user", "First")]
        assert page.evaluate("document.activeElement.ariaLabel") == "Message"  # the pressed button is gone
        page.get_by_role("button", name="Edit").click()
        page.get_by_label("The message, edited").fill("Changed")
        page.keyboard.press("Enter")
        wait_until(lambda: len(engine.rendered) == 3)
        assert asked(engine) == [("user", "Changed")]
        page.get_by_role("button", name="New chat").click()
        assert page.locator(".message").count() == 0
        page.get_by_role("button", name="Changed", exact=True).click()
        assert page.locator(".message").count() == 2


def test_settings_system_text_and_length_are_sent(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    with visit(browser, live.url) as page:
        page.get_by_text("System text, length, export").click()
        page.get_by_label("System text").fill("Be brief.")
        page.get_by_label("At most so many tokens").fill("5")
        page.get_by_text("Sampling settings").click()
        temperature = page.get_by_label("Temperature")
        page.locator("input[name=temperature][max='2']").wait_for()
        assert temperature.get_attribute("placeholder") == "1 or the checkpoint's"
        temperature.fill("0.5")
        page.get_by_label("Stop strings").fill("END\nstop")
        say(page, "Hi")
        said(page)
    params = engine.calls[-1].params
    assert (params.temperature, params.max_tokens, params.top_k) == (0.5, 5, 64)
    assert {"END", "stop"} <= set(params.stop)
    assert asked(engine) == [("system", "Be brief."), ("user", "Hi")]


def test_markdown_becomes_elements_and_nothing_else(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(text=MARKDOWN)
    with visit(browser, live.url) as page:
        say(page, "**Show**")
        said(page)
        body = answer_of(page)
        assert page.locator(".message.user .body").inner_text() == "**Show**"
        for selector, text in {
            "h4": "Title", "strong": "bold", "em": "soft", "p code": "code", "ol li": "first", "ul ul li": "within",
            "blockquote": "said", "pre code": 'print("<i>")',
        }.items():  # fmt: skip
            assert body.locator(selector).inner_text() == text
        link = body.locator("a")
        assert (link.count(), link.get_attribute("href")) == (1, "https://example.org/a")
        assert link.get_attribute("rel") == "noopener noreferrer"
        assert body.locator("b, i").count() == 0
        assert "[no](javascript:alert(1)) <b>not bold</b>" in body.inner_text()


def test_the_same_request_as_programs_and_files(browser: "Browser", live: LiveServer, tmp_path: Path) -> None:
    with visit(browser, live.url) as page:
        say(page, "it's")
        said(page)
        page.get_by_role("button", name="Show as", exact=True).click()
        shown = page.locator("dialog pre")
        assert f"curl -N {live.url}/v1/chat/completions" in shown.inner_text()
        assert "it'\\''s" in shown.inner_text()
        for language, words in (("Python", f'base_url="{live.url}/v1"'), ("JavaScript", f'"model": "{MODEL_ID}"')):
            page.get_by_label("The same request in").select_option(language)
            assert words in shown.inner_text()
        page.get_by_role("button", name="Close").click()
        page.get_by_text("System text, length, export").click()
        for kind in ("JSON", "Markdown"):
            with page.expect_download() as download:
                page.get_by_role("button", name=f"Export {kind}").click()
            download.value.save_as(tmp_path / kind)
    messages = json.loads((tmp_path / "JSON").read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert "## user\n\nit's\n" in (tmp_path / "Markdown").read_text()


def test_an_error_is_read_and_the_server_comes_back(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    from engine.engine_info import EngineStatus

    with visit(browser, live.url, expected="status of (400|503)") as page:
        page.get_by_text("Sampling settings").click()
        page.get_by_label("Temperature").fill("7")
        say(page, "Hi")
        assert "'temperature'" in said(page)
        page.get_by_label("Temperature").fill("")
        engine.status = EngineStatus.LOADING
        page.get_by_role("button", name="Regenerate").click()
        page.get_by_text("The model is loading.").first.wait_for()
        engine.status = EngineStatus.READY
        page.locator("#banner").wait_for(state="hidden")
        page.get_by_role("button", name="Regenerate").click()
        page.get_by_text(engine.script.text).first.wait_for()


def test_a_key_is_asked_for_and_told_to_nobody(browser: "Browser", engine: FakeEngine) -> None:
    with (
        live_server(engine, ServerSettings(api_keys=("secret-1",))) as live,
        visit(browser, live.url, expected="status of 401") as page,
    ):
        for key, words in (("wrong", "asks for a key"), ("secret-1", "not one of")):
            page.get_by_text(words).wait_for()
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for(state="hidden")
        say(page, "Hi")
        assert said(page) == engine.script.text
        page.get_by_role("button", name="Show as", exact=True).click()
        assert "secret-1" not in page.locator("dialog pre").inner_text()
        assert "secret-1" not in page.evaluate("JSON.stringify(localStorage) + document.body.textContent")


def test_an_idle_page_asks_nothing(browser: "Browser", live: LiveServer) -> None:
    with visit(browser, live.url) as page:
        page.locator("option", has_text=MODEL_ID).wait_for(state="attached")
        page.wait_for_timeout(300)
        seen: list[str] = []
        page.on("request", lambda request: seen.append(request.url))
        page.wait_for_timeout(1500)
        assert seen == []


def test_what_the_browser_kept_may_be_anything(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    with visit(browser, live.url) as page:
        for stored in ("{", '"x"', '[{"id": 1}]', "null", '[{"id":"a","title":"t","system":"","messages":[{}]}]'):
            for name in ("conversations", "settings", "text", "theme", "chat_max_tokens"):
                page.evaluate("([name, value]) => localStorage.setItem(`gemma3.${name}`, value)", [name, stored])
            page.reload()
            say(page, "Hi")
            assert said(page) == engine.script.text
