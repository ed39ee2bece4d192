"""*Server* in a real browser: figures that move while requests run, and a page that asks nothing while it is hidden."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engine.engine_info import EngineStats
from engine.kv_cache_sizes import BlockCounts, KVCacheLayout
from engine.request_status import RequestPhase
from engine.step_sizes import StepSizes
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import LiveServer
from tests.openai_api.test_server_status import HEX, status_of
from tests.page.browsing import visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LAYOUT = KVCacheLayout(block_size=16, window=512, num_global_layers=3, num_sliding_layers=15, num_bytes_per_token=1024)


class BusyEngine(FakeEngine):
    """Each time it is asked it has said 50 tokens more, in ten steps."""

    num_asked = 0

    def stats(self) -> EngineStats:
        self.num_asked += 1
        steps = StepSizes((10 * self.num_asked,) + (0,) * 12, 50 * self.num_asked)
        return replace(super().stats(), step_sizes=steps, num_output_tokens=50 * self.num_asked)


@pytest.fixture
def engine() -> FakeEngine:
    engine = BusyEngine()
    engine.info = replace(
        engine.info, isa="avx2", num_threads=2, step_bytes=1 << 20, kv_layout=LAYOUT, kv_blocks=BlockCounts(9, 4)
    )
    return engine


def chart(page: "Page", label: str) -> str:
    return page.locator(".chart").filter(has_text=label).locator("strong").inner_text()


def test_figures_move_while_a_request_runs(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    engine.statuses = [
        status_of(f"chatcmpl-{HEX}", "", num_cached_tokens=4, num_computed_tokens=12, num_output_tokens=3),
        status_of("<b>x</b>", "", phase=RequestPhase.WAITING, is_constrained=True, num_forced_tokens=2),
    ]
    with visit(browser, live.url, "server") as page:
        page.locator("tbody code").first.wait_for()
        rows = page.locator("tbody tr")
        assert rows.nth(0).inner_text().split("\t")[:2] == ["chatcmpl-01234567", "decode"]
        assert "10, 4 cached" in rows.nth(0).inner_text()
        assert "3 of 64" in rows.nth(0).inner_text()
        assert rows.nth(1).inner_text().startswith("<b>x</b>")
        assert "constrained, 2 forced" in rows.nth(1).inner_text()
        engine.statuses = [replace(engine.statuses[0], num_output_tokens=9)]
        page.get_by_text("9 of 64").wait_for()
        assert rows.count() == 1
        assert chart(page, "Generated tokens").endswith("/s")
        assert page.locator(".chart .line[d^=M]").count() >= 4, "lines are drawn"
        assert page.get_by_role("img", name="Generated tokens").count() == 1
        assert "9 blocks" in page.locator(".facts").inner_text()
        page.get_by_label("Memory bandwidth").fill("1")
        page.get_by_text("are what that bandwidth allows; now").wait_for()
        engine.statuses = []
        page.get_by_text("No request runs or waits.").wait_for()


def test_a_hidden_view_asks_nothing(browser: "Browser", live: LiveServer, engine: FakeEngine) -> None:
    """Of another tab of the page, or of the browser; and shown again it goes on."""
    with visit(browser, live.url, "server") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.locator(".facts dd").first.wait_for()
        with page.expect_request("**/v1/server"):
            pass
        page.get_by_role("link", name="Connect").click()
        page.locator(".view.connect h2").first.wait_for()
        asked.clear()
        page.wait_for_timeout(1500)
        assert [url for url in asked if "/v1/server" in url] == []
        with page.expect_request("**/v1/server"):
            page.get_by_role("link", name="Server").click()
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true}); document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.wait_for_timeout(300)
        asked.clear()
        page.wait_for_timeout(1500)
        assert asked == []
