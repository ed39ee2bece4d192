"""``examples/`` as programs, against the real base model."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openai_api.real_server import ROOT, RealServer, real_server

ORDERS = """text,customer,item,quantity
Anna Schmidt wants 3 desk lamps.,Anna Schmidt,desk lamp,3
Please send 12 notebooks to Luis Ortega.,Luis Ortega,notebook,12
Could Tom Baker get 40 chairs?,,,
"""
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
    with real_server("--max-model-len", "4096") as live:
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
