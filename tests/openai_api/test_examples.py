"""``examples/`` as programs, against the real base model."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.openai_api.real_server import ROOT, RealServer, real_server

ORDERS = """text,customer,item,quantity
Anna Schmidt wants 3 desk lamps.,Anna Schmidt,desk lamp,3
Please send 12 notebooks to Luis Ortega.,Luis Ortega,notebook,12
Could Tom Baker get 40 chairs?,,,
"""
ORIGIN = "http://localhost:8080"
SCHEMA = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 40},
        "item": {"type": "string", "maxLength": 40},
        "quantity": {"type": "integer", "minimum": 0, "maximum": 1000},
    },
    "required": ["customer", "item", "quantity"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(embedded_gguf: Path) -> Iterator[RealServer]:
    with real_server("--max-model-len", "4096", "--allowed-origin", ORIGIN) as live:
        yield live


def run(name: str, *args: str, text: str = "") -> str:
    """What the example prints."""
    command = [sys.executable, str(ROOT / "examples" / name), *args]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_extract_csv(server: RealServer, tmp_path: Path) -> None:
    rows, schema, output = tmp_path / "orders.csv", tmp_path / "order.json", tmp_path / "fields.csv"
    rows.write_text(ORDERS)
    schema.write_text(json.dumps(SCHEMA))
    args = ("--schema", str(schema), "--shots", "2", "-o", str(output), "--url", f"{server.url}/v1")
    run("extract_csv.py", str(rows), *args)
    with output.open(newline="") as file:
        *examples, last = csv.DictReader(file)
    assert [row["quantity"] for row in examples] == ["3", "12"]
    assert (last["customer"], last["item"], last["quantity"]) == ("Tom Baker", "chair", "40")


def test_extract_csv_has_a_reason_for_a_row_that_fails(server: RealServer, tmp_path: Path) -> None:
    rows, schema = tmp_path / "rows.csv", tmp_path / "schema.json"
    rows.write_text("text\n" + "word " * 5_000 + "\n")
    schema.write_text(json.dumps(SCHEMA))
    printed = run("extract_csv.py", str(rows), "--schema", str(schema), "--url", f"{server.url}/v1")
    assert "4096" in printed.splitlines()[1]


def test_route(server: RealServer) -> None:
    text = "When will my order be delivered?\n\nPlease refund the 20 euros.\n"
    printed = run("route.py", "payment", "delivery", "computer", "--url", server.url, text=text)
    assert [line.split("\t")[0] for line in printed.splitlines()] == ["delivery", "payment"]


def test_agent(server: RealServer) -> None:
    assert (
        run("agent.py", "Is it raining in Oslo?", f"{server.url}/v1").strip() == "It is raining in Oslo, at 8 degrees."
    )


def test_browser_may_ask(server: RealServer) -> None:
    """What a browser sends before the request of ``examples/browser``, and needs in the answer to it."""
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    url = f"{server.url}/v1/chat/completions"
    preflight = httpx.options(url, headers=asked)
    assert preflight.is_success
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower()
    for answer in (preflight, httpx.post(url, headers={"Origin": ORIGIN}, json={"messages": []})):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert httpx.options(url, headers=asked | {"Origin": "http://other.example"}).status_code == 403


# A form, an output, and the header that a browser adds: enough of a page for the script to run in.
PAGE = """
const output = { textContent: "", append(text) { this.textContent += text; } };
const form = {
  server: { value: process.argv[2] },
  question: { value: "What is the capital of France?" },
  ask: {},
  stop: { addEventListener() {} },
  addEventListener(name, handler) { this[name] = handler; },
};
globalThis.document = { querySelector: (name) => ({ form, output })[name] };
const { fetch } = globalThis;
globalThis.fetch = (url, options) => fetch(url, { ...options, headers: { ...options.headers, Origin: "ORIGIN" } });
await import("./script.mjs");
await form.submit({ preventDefault() {} });
console.log(output.textContent);
"""


def test_browser(server: RealServer, tmp_path: Path) -> None:
    """The script of the page as it stands there, without a browser."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    html = (ROOT / "examples" / "browser" / "index.html").read_text()
    (tmp_path / "script.mjs").write_text(html.partition('<script type="module">')[2].partition("</script>")[0])
    (tmp_path / "page.mjs").write_text(PAGE.replace("ORIGIN", ORIGIN))
    done = subprocess.run([node, "page.mjs", server.url], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "Paris.", done.stderr
