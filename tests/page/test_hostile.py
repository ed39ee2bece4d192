"""What the model, its names and errors say is text: never markup, scripts or links that run."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer
from tests.page.browsing import visit
from tests.page.test_chat import said, say
from tests.page.test_text import complete, tokens

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script><svg onload=alert(3)>",
    "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(2)) [c](data:text/html,<script>alert(3)</script>) ![d](https://example.org/x.png)",
    '[e](vbscript:x) [f](//example.org) [g](/etc) <javascript:alert(1)> [h](https://example.org/"onmouseover=alert(1))',
    "```html\n</code></pre><script>alert(1)</script>\n```\n**<iframe src=https://example.org>**",
    "<style>*{display:none}</style><base href=https://example.org><meta http-equiv=refresh content=0>",
    "\u202egnp.exe \u0000 \ufeff <a href='https://example.org' onclick='alert(1)'>x</a>",
)
LOADED = "main :is(img, script, svg, iframe, style, base, meta, object, embed, form)"
# Each would take time by the square of its length, or more, in a parser that is not bounded.
LONG = (
    "[" * 20000,
    "*" * 20000,
    "**a " * 6000,
    "`" * 20001,
    "> " * 5000 + "x",
    "- " * 5000 + "x",
    "<http://" * 3000,
    "_a" * 9000,
)


def test_an_answer_stays_text(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    with visit(browser, live.url) as page:
        for text in HOSTILE:
            engine.script = Script(text=text, tokens_per_output=40)
            page.get_by_role("button", name="New chat").click()
            say(page, text)
            said(page)
            assert page.locator(LOADED).count() == 0
            links = page.locator(".message a").evaluate_all("all => all.map((a) => [a.protocol, a.attributes.length])")
            assert all(link == ["https:", 4] for link in links)


def test_tokens_stay_text(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(text=HOSTILE[0], tokens_per_output=40)
    with visit(browser, live.url, "text") as page:
        complete(page, HOSTILE[4])
        assert HOSTILE[0].replace(" ", "\u2423").startswith("".join(tokens(page)[len(HOSTILE[4]) + 1 :]))
        page.locator(".token").nth(5).hover()
        page.locator(".popup").wait_for()
        assert page.locator(LOADED).count() == 0


def test_names_and_errors_stay_text(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    name = "<img src=x onerror=alert(1)>"
    engine.info = replace(engine.info, model_id=name)
    engine.script = Script(fail=RuntimeError(name), fail_at=0)
    with visit(browser, live.url, expected="status of 500") as page:
        page.locator("#model option", has_text=name).wait_for(state="attached")
        say(page, name)
        assert "server failed" in said(page).lower() or "internal" in said(page).lower()
        page.goto(f"{live.url}/#connect")
        assert name in page.locator("pre").first.inner_text()
        assert page.locator("body img").count() == 0


@pytest.mark.slow
def test_markdown_has_an_end(browser: "Browser", live: LiveServer) -> None:
    """Half a minute is for what would take hours: patterns without bounds, at a hundred times the longest answer."""
    with visit(browser, live.url) as page:
        for text in LONG:
            took_ms = page.evaluate(
                """async (text) => {
                  const { markdown } = await import("/page/markdown.js");
                  const began = performance.now();
                  markdown(text);
                  return performance.now() - began;
                }""",
                text * 10,
            )
            assert took_ms < 30_000, text[:10]
