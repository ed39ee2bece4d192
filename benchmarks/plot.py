"""The curves of docs/pictures, from the JSON lines that other benchmarks print last.

    python benchmarks/compare_peers.py ... | tail -1 >> benchmarks/results/MACHINE.jsonl
    python benchmarks/plot.py [benchmarks/results/MACHINE.jsonl ...] [--output docs/pictures]

Reads lines of ``compare_peers``, ``bench_decode`` and ``bench_load``, of one machine; a figure that is
measured again replaces the earlier one. The same lines give the same bytes with the same matplotlib
(pip install ".[plot]"). Backgrounds are transparent, and colours have contrast on white and on black.
"""

import argparse
import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
from common import ROOT, layer_weights, step_bytes
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gemma3.config import Gemma3TextConfig

RESULTS, PICTURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "pictures"
INK = "#7d7d7d"
COLOURS = ("#2f81f7", "#0f9d8a", "#d9730d", "#a35bd6", "#c0504d", "#8a8000")
MARKERS = "osD^vP"
NAMES = {
    "ours": "this project",
    "llama_cpp": "llama.cpp",
    "openvino_genai": "OpenVINO GenAI",
    "onnxruntime_genai": "ONNX Runtime GenAI",
    "ctranslate2": "CTranslate2",
}
STYLE = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **{"grid.color": INK, "grid.alpha": 0.3, "axes.grid": True, "axes.spines.top": False, "axes.spines.right": False},
    **{"font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans", "sans-serif"], "font.size": 10},
    **{"svg.fonttype": "none", "svg.hashsalt": "gemma3", "legend.frameon": False, "axes.titlesize": 10},
}


@dataclass
class Measured:
    """``speeds``: tokens/s by figure and engine, an engine named as in a legend. ``load``: the points by rate."""

    subtitle: str = ""
    bandwidths: list[float] = field(default_factory=list)
    products_per_s: list[float] = field(default_factory=list)
    speeds: dict[str, dict[str, float]] = field(default_factory=dict)
    load: dict[float, dict[str, float]] = field(default_factory=dict)

    def take(self, line: dict) -> None:
        self.subtitle = f"{re.sub(', Python.*', '', line['machine'])}; {line['date']}"
        self.bandwidths.append(line["bandwidth"])
        if "products_per_s" in line:
            self.products_per_s.append(line["products_per_s"])
        for name, values in line["figures"].items():
            figure, engine = figure_and_engine(name)
            self.speeds.setdefault(figure, {})[engine] = values["median"]
        self.load |= {point["rate"]: point for point in line.get("points", ())}

    @property
    def engines(self) -> list[str]:
        """Ours first, of ours int8, then in alphabetical order."""
        names = {engine for by_engine in self.speeds.values() for engine in by_engine}
        return sorted(names, key=lambda name: (NAMES["ours"] not in name, "int4" in name, name))

    def curve(self, engine: str, pattern: str) -> list[tuple[float, float]]:
        """(x, tokens/s) of an engine; x is the number in the names of figures that are ``pattern``."""
        points = []
        for figure, by_engine in self.speeds.items():
            if engine in by_engine and (found := re.fullmatch(pattern, figure)):
                points.append((float(found[1].replace(",", "")), by_engine[engine]))
        return sorted(points)


def figure_and_engine(name: str) -> tuple[str, str]:
    """Of a name of ``bench_decode``, "int4, context 32, 8 streams", or of ``compare_peers``, "8 streams | KIND MODEL"."""
    if found := re.fullmatch(r"(\w+), context ([\d,]+), (\d+ streams)", name):
        precision, context, streams = found.groups()
        return streams if context == "32" else f"{streams} at {context}", f"{NAMES['ours']}, {precision}"
    figure, _, engine = name.partition(" | ")
    kind, _, model = engine.partition(" ")
    precision = re.search(r"int\d|q\d\w*(?=\.gguf)", model)
    label = f"{NAMES.get(kind, kind)}, {precision[0].replace('q', 'Q')}" if precision else NAMES.get(kind, kind)
    return figure.replace("one stream, 32 + 128", "1 streams"), label


@dataclass(frozen=True)
class Curve:
    """A line of a panel; ``name`` is in the legend, and the line's id in the file. An engine has one ``style``."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    is_joined: bool = True


def draw(axes: Axes, curves: Sequence[Curve], *, x: str, y: str, title: str = "") -> None:
    for curve in curves:
        (line,) = axes.plot(
            [at for at, _ in curve.points],
            [value for _, value in curve.points],
            color=COLOURS[curve.style % len(COLOURS)],
            marker=MARKERS[curve.style % len(MARKERS)],
            linestyle="-" if curve.is_joined else "none",
            label=curve.name,
        )
        line.set_gid(f"curve {curve.name}")
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.legend()


def by_engine(measured: Measured, pattern: str) -> list[Curve]:
    """Of all engines that have more than a point."""
    curves = [Curve(name, measured.curve(name, pattern), i) for i, name in enumerate(measured.engines)]
    return [curve for curve in curves if len(curve.points) > 1]


def from_nothing(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def panels(num: int, title: str) -> tuple[Figure, list[Axes]]:
    """Places are fixed, so that numbers of any width leave the axes where they are."""
    figure = Figure(figsize=(7 if num == 1 else 9.2, 3.8))
    width = (1 - 0.02) / num
    axes = [figure.add_axes((i * width + 0.22 / (num + 1), 0.15, width - 0.24 / (num + 1), 0.66)) for i in range(num)]
    figure.suptitle(title, fontsize=10)
    return figure, axes


def over_streams(measured: Measured) -> Figure:
    figure, (axes,) = panels(1, f"Tokens/s of all streams together, greedy\n{measured.subtitle}")
    curves = by_engine(measured, r"(\d+) streams")
    draw(axes, curves, x="streams", y="tokens/s")
    powers(axes, sorted({x for curve in curves for x, _ in curve.points}))
    from_nothing(axes)
    return figure


def over_context(measured: Measured) -> Figure:
    figure, (decode, prefill) = panels(2, f"One stream over the length of its prompt\n{measured.subtitle}")
    for axes, pattern, title in (
        (decode, r"one stream at ([\d,]+)", "decoding"),
        (prefill, r"prefill ([\d,]+)", "computing the prompt"),
    ):
        curves = by_engine(measured, pattern)
        draw(axes, curves, x="prompt tokens", y="tokens/s", title=title)
        powers(axes, sorted({x for curve in curves for x, _ in curve.points}))
        from_nothing(axes)
    return figure


def powers(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis that names the measured values."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, labels=[f"{value:,.0f}" for value in values])
    axes.minorticks_off()


def under_load(measured: Measured) -> Figure:
    figure, axes = panels(2, f"Latency under an offered load, over HTTP\n{measured.subtitle}")
    for each, title, key in zip(axes, ("first token", "between two tokens"), ("first_token", "between"), strict=True):
        curves = [
            Curve(name, [(rate, point[f"{key}_{share}_ms"]) for rate, point in sorted(measured.load.items())], style)
            for style, (name, share) in enumerate((("median", "p50"), ("95 of 100", "p95")))
        ]
        draw(each, curves, x="requests/s", y="ms", title=title)
        from_nothing(each)
    return figure


def roofline(measured: Measured) -> Figure:
    """Multiply-adds a second over multiply-adds for a byte of weights, and the two limits of the machine."""
    figure, (axes,) = panels(1, f"What the machine allows, and what is reached\n{measured.subtitle}")
    bandwidth, products = statistics.median(measured.bandwidths), statistics.median(measured.products_per_s)
    limit = [(0.7, 0.7 * bandwidth / 1e9), (products / bandwidth, products / 1e9), (4096, products / 1e9)]
    curves = []
    for style, engine in enumerate(measured.engines):
        points = [decoding(engine, num, speed) for num, speed in measured.curve(engine, r"(\d+) streams")]
        prefills = measured.curve(engine, r"prefill ([\d,]+)")
        points += [(num, speed * layer_weights() / 1e9) for num, speed in prefills]
        curves.append(Curve(engine, sorted(points), style, is_joined=False))
    draw(axes, curves, x="multiply-adds for a byte that is read", y="billion multiply-adds/s")
    (line,) = axes.plot(*zip(*limit, strict=True), color=INK, label="bandwidth, then products from cache")
    line.set_gid("curve limits")
    axes.legend(loc="lower right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks([10, 20, 50, 100, 200], labels=["10", "20", "50", "100", "200"])
    axes.minorticks_off()
    return figure


def decoding(engine: str, num_streams: float, tokens_per_s: float) -> tuple[float, float]:
    """Multiply-adds for a byte, and billions of them a second. Ours finds the likeliest token in half of the head."""
    config = Gemma3TextConfig()
    is_ours = engine.startswith(NAMES["ours"])
    products = layer_weights() + config.vocab_size * config.hidden_size / (2 if is_ours else 1)
    whole, least = step_bytes("int4" if re.search("int4|Q4", engine) else "int8")
    return num_streams * products / (least if is_ours else whole), tokens_per_s * products / 1e9


DRAWINGS: dict[str, Callable[[Measured], Figure]] = {
    "streams": over_streams,
    "context": over_context,
    "load": under_load,
    "roofline": roofline,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, default=sorted(RESULTS.glob("*.jsonl")))
    parser.add_argument("--output", type=Path, default=PICTURES)
    args = parser.parse_args()
    measured = Measured()
    for path in args.results:
        for line in path.read_text().splitlines():
            measured.take(json.loads(line))
    args.output.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, drawing in DRAWINGS.items():
            path = args.output / f"{name}.svg"
            drawing(measured).savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
            print(path)


if __name__ == "__main__":
    main()
