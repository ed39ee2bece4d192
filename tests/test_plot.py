"""``benchmarks/plot.py``: it draws what its lines of JSON say, and the committed pictures are what it draws of the
committed lines. Coordinates and words are compared, not bytes, which change with matplotlib's version.
"""

import importlib.util
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
NAMES = ("streams", "context", "load", "roofline")
MOST_BYTES = 60_000
SVG = "{http://www.w3.org/2000/svg}"
PAGES = ("#ffffff", "#0d1117")  # of a browser in light and in dark
FIGURES = {
    "one stream, 32 + 128 | ours int8-avx2": 100.0,
    "8 streams | ours int8-avx2": 300.0,
    "one stream, 32 + 128 | llama_cpp x-q8_0.gguf": 50.0,
    "8 streams | llama_cpp x-q8_0.gguf": 200.0,
    **{
        f"{what} | ours int8-avx2": 90.0
        for what in ("one stream at 128", "one stream at 2,048", "prefill 128", "prefill 512")
    },
}
POINT = {f"{name}_{share}_ms": 10.0 for name in ("first_token", "between") for share in ("p50", "p95")}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason='matplotlib is not installed: pip install ".[plot]"'
)


def plot(*args: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "plot.py"), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def line(benchmark: str, figures: dict[str, float], **more: object) -> str:
    head = {"benchmark": benchmark, "machine": "a machine", "date": "2026-01-02", "bandwidth": 4e10}
    return json.dumps(head | {"figures": {name: {"median": value} for name, value in figures.items()}} | more) + "\n"


def words(svg: Path) -> list[str]:
    return ["".join(each.itertext()).strip() for each in ET.parse(svg).iter(f"{SVG}text")]


def curves(svg: Path) -> dict[str, list[tuple[float, float]]]:
    """The places of each curve, in points; of those without a line that of the markers."""
    found = {}
    for i, group in enumerate(ET.parse(svg).iter(f"{SVG}g")):
        if (name := group.get("id", "")).startswith("curve "):
            used = [(float(use.get("x", 0)), float(use.get("y", 0))) for use in group.iter(f"{SVG}use")]
            path = re.findall(r"[ML] (\S+) (\S+)", next(group.iter(f"{SVG}path")).get("d", ""))
            found[f"{name} {i}"] = used or [(float(x), float(y)) for x, y in path]
    return found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the committed lines, as they come out now."""
    folder = tmp_path_factory.mktemp("drawn")
    plot("--output", str(folder))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_committed_pictures_are_what_is_drawn_now(drawn: Path, name: str) -> None:
    now, committed = drawn / f"{name}.svg", PICTURES / f"{name}.svg"
    assert words(now) == words(committed)
    assert curves(now).keys() == curves(committed).keys() != set()
    for curve, places in curves(now).items():
        for place, before in zip(places, curves(committed)[curve], strict=True):
            assert place == pytest.approx(before, abs=0.5), curve


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_small_and_can_be_read_in_light_and_dark(name: str) -> None:
    path = PICTURES / f"{name}.svg"
    text = path.read_text()
    assert path.stat().st_size <= MOST_BYTES
    assert "<dc:date>" not in text
    colours = set(re.findall(r"(?:fill|stroke): (#\w+)", text))
    assert colours
    assert min(contrast(colour, page) for colour in colours for page in PAGES) >= 3


def contrast(colour: str, other: str) -> float:
    """As WCAG 2 has it."""
    low, high = sorted(map(_luminance, (colour, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_made_up_lines(tmp_path: Path) -> None:
    """Every picture, twice with the same bytes; higher is faster, and what is measured again replaces."""
    results = tmp_path / "results.jsonl"
    results.write_text(
        line("compare_peers", FIGURES | {"8 streams | ours int8-avx2": 1.0}, products_per_s=1e11)
        + line("compare_peers", {"8 streams | ours int8-avx2": 400.0}, products_per_s=1e11)
        + line("bench_decode", {"int4, context 32, 1 streams": 100.0, "int4, context 32, 8 streams": 400.0})
        + line("bench_load", {}, points=[{"rate": 1.0, **POINT}, {"rate": 2.0, **POINT}])
    )
    for folder in ("once", "again"):
        plot(str(results), "--output", str(tmp_path / folder))
    once = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
    assert once == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert sorted(once) == sorted(f"{name}.svg" for name in NAMES)
    streams = tmp_path / "once" / "streams.svg"
    assert {"this project, int8", "this project, int4", "llama.cpp, Q8_0", "a machine; 2026-01-02"} <= set(
        words(streams)
    )
    ours, in_4_bits, peer = curves(streams).values()
    assert ours == in_4_bits
    assert all(first_y < second_y for (_, first_y), (_, second_y) in zip(ours, peer, strict=True))
