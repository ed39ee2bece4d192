// Small charts of the last minute, drawn as SVG nodes. Knows nothing of where the figures come from.

import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240, HEIGHT = 56, TOP = 4;
export const NUM_POINTS = 60;

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// One line that moves to the left. `words(value)` writes a value; null is a gap: nothing was measured then.
export class Chart {
  #values = [];

  // most: the top of the scale where it is known, as 1 for a share; else the largest value that is shown.
  constructor(label, words, { most = null } = {}) {
    Object.assign(this, { label, words, most });
    this.now = h("strong", null, "\u2013");
    this.line = svg("path", { class: "line" });
    this.area = svg("path", { class: "area" });
    this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.picture.append(this.area, this.line);
    this.element = h("figure", { class: "chart" }, h("figcaption", null, h("span", null, label), this.now), this.picture);
    this.#draw();
  }

  add(value) {
    this.#values.push(value);
    if (this.#values.length > NUM_POINTS) this.#values.shift();
    this.#draw();
  }

  #draw() {
    const known = this.#values.filter((value) => value !== null);
    const last = this.#values.at(-1) ?? null;
    this.now.textContent = last === null ? "\u2013" : this.words(last);
    const range = known.length ? `, between ${this.words(Math.min(...known))} and ${this.words(Math.max(...known))} in the last minute` : "";
    this.picture.setAttribute("aria-label", `${this.label}: ${last === null ? "nothing measured now" : this.words(last)}${range}`);
    const runs = this.#runs(this.most ?? Math.max(...known, 0));
    this.line.setAttribute("d", runs.map((run) => `M${run.join("L")}`).join(""));
    this.area.setAttribute("d", runs.map((run) => `M${x(run[0])},${HEIGHT}L${run.join("L")}L${x(run.at(-1))},${HEIGHT}Z`).join(""));
  }

  // Points "x,y" between the gaps; the newest value stands at the right. A run of one point is drawn as a dash.
  #runs(most) {
    const first = NUM_POINTS - this.#values.length, runs = [[]];
    this.#values.forEach((value, at) => {
      if (value === null) return void (runs.at(-1).length && runs.push([]));
      const y = (HEIGHT - (most > 0 ? Math.min(1, value / most) : 0) * (HEIGHT - TOP)).toFixed(1);
      for (const end of [0, 1]) runs.at(-1).push(`${(((first + at + end) * WIDTH) / NUM_POINTS).toFixed(1)},${y}`);
    });
    return runs.filter((run) => run.length);
  }
}

const x = (point) => point.split(",")[0];
