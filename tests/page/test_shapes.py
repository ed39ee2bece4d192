"""*Shapes* in a real browser: checked while typed, what was forced beside what was chosen, decisions as bars."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer
from tests.page.browsing import visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<img src=x onerror=alert(1)>"


def ask(page: "Page") -> None:
    page.get_by_role("button", name="Ask").click()
    page.locator(".view.shapes .summary:not(:empty)").wait_for()


def test_a_shape_is_checked_while_it_is_typed(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    """Its syntax here, what it asks for by the server, whose words stand at the field; nothing is generated."""
    with visit(browser, live.url, "shapes", expected="status of 400") as page:
        shape = page.get_by_label("Shape", exact=True)
        shape.fill('{"type": ')
        page.get_by_text("This is no JSON").wait_for()
        assert shape.get_attribute("aria-invalid") == "true"
        assert engine.compiled == []
        shape.fill('{"type": "string", "title": "impossible"}')
        page.get_by_text("Invalid value for 'response_format.json_schema.schema': it is impossible.").wait_for()
        assert shape.get_attribute("aria-invalid") == "true"
        shape.fill('{"type": "string"}')
        page.get_by_text("The server takes this shape.").wait_for()
        assert shape.get_attribute("aria-invalid") is None
        assert {call.params.max_tokens for call in engine.calls} == {0}
        page.get_by_label("Kind of shape").select_option("Tools")
        shape.fill('[{"type": "function", "function": {"name": "not a name"}}]')
        page.locator(".error").filter(has_text="tools[0].function.name").wait_for()


def test_forced_and_chosen_are_told_apart(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    """In colours and in words, and a character that two tokens share stands where it ends."""
    engine.script = Script(text='{"\u00e9":1}', forced=bytes([1, 1, 0, 0, 1, 1, 0, 1]), token_s=0.01)
    with visit(browser, live.url, "shapes") as page:
        page.get_by_label("Shape", exact=True).fill('{"type": "object"}')
        ask(page)
        runs = page.locator(".shaped > span")
        assert [run.get_attribute("class") for run in runs.all()] == [
            "forced",
            "chosen",
            "forced",
            "chosen",
            "forced",
            "chosen",
        ]
        assert (runs.nth(0).text_content() or "").strip() == 'forced: {"'
        assert (runs.nth(1).text_content() or "").strip() == "chosen: \u00e9"
        assert page.locator(".summary").last.inner_text().startswith("5 of 9 tokens were forced, 4 chosen")
        assert json.loads(page.get_by_label("The answer as JSON").inner_text()) == {"\u00e9": 1}
        page.get_by_text("Token by token").click()
        cells = page.locator(".answer tbody tr").first.locator("th, td").all_inner_texts()
        assert cells[:2] == [json.dumps("{"), "forced"]
        assert "%" in cells[2]


def test_decisions_have_bars(browser: "Browser", live: LiveServer) -> None:
    """They are answered while they are typed; of hostile names nothing runs."""
    questions = [
        {
            "type": "choice",
            "name": HOSTILE,
            "instructions": "Which?",
            "choices": [{"value": "red"}, {"value": HOSTILE}],
        },
        {"type": "predicate", "instructions": "It is so."},
        {"type": "score", "instructions": "How much?", "levels": [{"label": "low"}, {"label": "high"}]},
    ]
    with visit(browser, live.url, "shapes", expected="status of 400") as page:
        page.get_by_label("Kind of shape").select_option("Decision")
        page.get_by_label("Shape", exact=True).fill(json.dumps(questions))
        page.locator(".decision").nth(2).wait_for()
        assert page.locator(".decision h3").all_inner_texts() == [HOSTILE, "Question 2", "Question 3"]
        labels = page.locator(".bars li > span:first-child").all_inner_texts()
        assert labels == ["red", HOSTILE, "yes", "no", "low", "high"]
        values = [float(each.get_attribute("value") or "nan") for each in page.locator(".bars meter").all()]
        for first, second in zip(values[::2], values[1::2], strict=True):
            assert abs(first + second - 1) < 1e-6
        assert page.locator(".answer img").count() == 0
        page.get_by_label("Shape", exact=True).fill('[{"type": "guess", "instructions": "x"}]')
        page.locator(".error").filter(has_text="questions[0].type").wait_for()


def test_a_call_of_a_tool_is_shown(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(text='{"name": "get_weather", "parameters": {"city": "Rome", "unit": "celsius"}}')
    with visit(browser, live.url, "shapes") as page:
        page.get_by_label("Start from an example").select_option("The weather, as a call of a tool")
        ask(page)
        assert page.get_by_role("heading", name="Calls get_weather").count() == 1
        told = page.get_by_label("Arguments of get_weather").inner_text()
        assert json.loads(told) == {"city": "Rome", "unit": "celsius"}


def test_a_decision_is_shown_as_programs_that_run(browser: "Browser", live: LiveServer, tmp_path: Path) -> None:
    """What the page shows asks what the page has asked, and gets the same answer."""
    with visit(browser, live.url, "shapes") as page:
        page.get_by_label("Start from an example").select_option("Where a letter belongs, as decisions")
        page.get_by_label("Message").fill('it\'s "here" \\ \u2028 \u00e9')
        ask(page)
        labels = page.locator(".bars li > span:first-child").all_inner_texts()
        page.get_by_role("button", name="Show as", exact=True).click()
        programs = {}
        for language in ("curl", "Python", "JavaScript"):
            page.get_by_label("The same request in").select_option(language)
            programs[language] = page.locator("dialog pre").text_content() or ""
    assert f"{live.url}/v1/decisions" in programs["curl"]
    assert 'client.post("/decisions", { body: {' in programs["JavaScript"]
    (tmp_path / "python.py").write_text(programs["Python"])
    (tmp_path / "curl.sh").write_text(programs["curl"])
    for command in ([sys.executable, "python.py"], ["sh", "curl.sh"]):
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stderr
        assert all(label in ran.stdout for label in labels if label not in ("yes", "no"))
