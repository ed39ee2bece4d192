"""The jobs of *Server* in a real browser: batches that run, end and fail, and a way to start and to cancel one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import LiveServer, live_server, wait_until
from tests.page.browsing import announced, visit
from tests.page.test_hostile import HOSTILE, LOADED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ENDPOINT = "/v1/completions"


def row(number: int, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"r{number}", "method": "POST", "url": ENDPOINT, "body": {"prompt": "Hi", **body}}


def lines(*rows: object) -> bytes:
    return "".join(f"{json.dumps(each)}\n" for each in rows).encode()


@pytest.fixture
def live(engine: FakeEngine, tmp_path: Path) -> Iterator[LiveServer]:
    """A server of its own, which keeps files."""
    with live_server(engine, ServerSettings(data_dir=str(tmp_path / "data"))) as live:
        yield live


def choose(page: "Page", content: bytes, name: str = "rows.jsonl") -> None:
    page.get_by_label("File of requests").set_input_files(
        {"name": name, "mimeType": "application/jsonl", "buffer": content}
    )


def start(page: "Page", content: bytes, name: str = "rows.jsonl") -> "Locator":
    """The newest job, which is that of ``content``."""
    num_jobs = page.locator(".job").count()
    choose(page, content, name)
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".job").nth(num_jobs).wait_for()
    return page.locator(".job").first


def test_a_file_becomes_a_batch_whose_answers_are_saved(browser: "Browser", live: LiveServer, tmp_path: Path) -> None:
    rows = [row(number) for number in range(5)]
    rows[3]["body"]["temperature"] = -1
    with visit(browser, live.url, "server") as page:
        page.get_by_text("No batch yet.").wait_for()
        choose(page, lines(*rows))
        wait_until(lambda: page.get_by_label("Endpoint").input_value() == ENDPOINT)  # as its first line says
        job = start(page, lines(*rows))
        job.locator(".state", has_text="completed").wait_for()
        assert job.locator(".counts").inner_text() == "5 of 5 rows, 1 failed"
        assert "file: rows.jsonl" in job.inner_text()
        assert job.locator("progress").evaluate("(bar) => bar.value / bar.max") == 1
        for words, ids in (("Save the answers", ["r0", "r1", "r2", "r4"]), ("Save the errors", ["r3"])):
            with page.expect_download() as download:
                job.get_by_role("button", name=words).click()
            assert download.value.suggested_filename.startswith("batch-")
            download.value.save_as(tmp_path / "saved")
            saved = (tmp_path / "saved").read_text().splitlines()
            assert [json.loads(line)["custom_id"] for line in saved] == ids
        assert job.get_by_role("button", name="Cancel").count() == 0
        announced(page, "completed")


def test_a_batch_that_runs_has_a_speed_and_can_be_cancelled(
    browser: "Browser", live: LiveServer, engine: FakeEngine
) -> None:
    engine.script = Script(text="x" * 20, token_s=0.02)
    with visit(browser, live.url, "server") as page:
        job = start(page, lines(*(row(number, max_tokens=30) for number in range(3000))))
        job.get_by_text("/s").wait_for()
        assert " left" in job.locator(".counts").inner_text()
        assert page.locator(".chart").filter(has_text="Batch rows").locator("strong").inner_text().endswith("/s")
        job.get_by_role("button", name="Cancel").focus()
        page.keyboard.press("Enter")
        assert job.get_by_role("button", name="Really cancel?").count() == 1
        page.keyboard.press("Tab")  # and thought better of it
        job.get_by_role("button", name="Cancel", exact=True).focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        job.locator(".state", has_text="cancelled").wait_for()
        num_rows = int(job.locator(".counts").inner_text().split()[0])
        assert 0 < num_rows < 3000
        assert httpx.get(f"{live.url}/v1/batches").json()["data"][0]["request_counts"]["completed"] == num_rows


def test_what_is_wrong_stands_where_it_is(browser: "Browser", live: LiveServer) -> None:
    with visit(browser, live.url, "server", expected="status of (400|413)") as page:
        file = page.get_by_label("File of requests")
        page.get_by_role("button", name="Start", exact=True).click()
        page.get_by_text("Choose a file first.").wait_for()
        assert file.get_attribute("aria-invalid") == "true"
        job = start(page, lines(row(0), row(0)) + b"<i>no JSON</i>\n")
        job.locator(".state", has_text="failed").wait_for()
        told = job.locator(".error li").all_inner_texts()
        assert told[0].startswith("Line 2, custom_id: This 'custom_id' was in an earlier line.")
        assert told[1].startswith("Line 3: ")
        assert file.get_attribute("aria-invalid") is None
        assert job.locator("progress").is_hidden()

        def refuse(route: Any) -> None:
            error = {"message": "'endpoint' is <b>wrong</b>.", "param": "endpoint", "code": "invalid_value"}
            route.fulfill(status=400, json={"error": error})

        page.route("**/v1/batches", lambda route: refuse(route) if route.request.method == "POST" else route.fallback())
        choose(page, lines(row(1)))
        num_files = len(httpx.get(f"{live.url}/v1/files").json()["data"])
        page.get_by_role("button", name="Start", exact=True).click()
        page.get_by_text("'endpoint' is <b>wrong</b>.").wait_for()
        assert page.get_by_label("Endpoint").get_attribute("aria-invalid") == "true"
        wait_until(lambda: len(httpx.get(f"{live.url}/v1/files").json()["data"]) == num_files)  # none is left behind


def test_a_dropped_file_is_as_good_as_a_chosen_one(browser: "Browser", live: LiveServer) -> None:
    with visit(browser, live.url, "server") as page:
        page.locator(".drop").wait_for()
        page.evaluate(
            """(text) => {
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File([text], "dropped.jsonl"));
              for (const kind of ["dragover", "drop"])
                document.querySelector(".drop").dispatchEvent(new DragEvent(kind, { dataTransfer, cancelable: true }));
            }""",
            lines(row(0)).decode(),
        )
        wait_until(lambda: page.get_by_label("Endpoint").input_value() == ENDPOINT)
        page.get_by_role("button", name="Start", exact=True).click()
        page.get_by_text("file: dropped.jsonl").wait_for()
        page.locator(".state", has_text="completed").wait_for()


def test_hostile_names_stay_text(browser: "Browser", live: LiveServer) -> None:
    with visit(browser, live.url, "server") as page:
        start(page, lines(row(0)), name=HOSTILE[0].replace("/", ""))
        for number, text in enumerate(HOSTILE):
            form = {"purpose": "batch"}
            stored = httpx.post(f"{live.url}/v1/files", data=form, files={"file": (text, lines({"custom_id": text}))})
            body = {"input_file_id": stored.json()["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
            made = httpx.post(f"{live.url}/v1/batches", json={**body, "metadata": {text[:60]: text, "n": str(number)}})
            assert made.status_code == 200, made.text
        page.locator(".state.failed").nth(len(HOSTILE) - 1).wait_for()
        assert HOSTILE[0][:60] in page.locator(".jobs").inner_text()
        assert page.locator(f"{LOADED}:not(.chart *)").count() == 0


def test_jobs_are_the_newest_and_more_are_shown_when_asked_for(browser: "Browser", live: LiveServer) -> None:
    """And a page that shows them again and again takes nobody's focus away."""
    stored = httpx.post(f"{live.url}/v1/files", data={"purpose": "batch"}, files={"file": ("a", lines(row(0)))})
    body = {"input_file_id": stored.json()["id"], "endpoint": ENDPOINT, "completion_window": "24h"}

    def make() -> str:
        return str(httpx.post(f"{live.url}/v1/batches", json=body).json()["id"])

    ids = [make() for _ in range(25)]
    with visit(browser, live.url, "server") as page:
        names = page.locator(".job h3")
        names.nth(19).wait_for()
        assert names.all_inner_texts() == ids[:4:-1]
        page.get_by_role("button", name="Show more").click()
        names.nth(24).wait_for()
        page.locator(".state.completed").nth(24).wait_for()
        page.get_by_role("button", name="Save the answers").nth(2).focus()
        newest = make()
        page.get_by_text(newest).wait_for()
        assert page.evaluate("document.activeElement.textContent") == "Save the answers"
        assert names.all_inner_texts() == [newest, *reversed(ids)]


def test_without_a_data_folder_it_says_so(browser: "Browser", engine: FakeEngine) -> None:
    with (
        live_server(engine, ServerSettings()) as live,
        visit(browser, live.url, "server") as page,
    ):
        page.get_by_text("start it with --data-dir").wait_for()
        assert page.get_by_label("File of requests").is_hidden()
        assert page.locator(".chart").filter(has_text="Batch rows").is_hidden()
