// One batch as an element: how far it is, how fast, what is wrong with its file, and what can be done with it.
// Knows no requests.

import { button, h, replace, set } from "./dom.js";
import { count, duration, perSecond, RowSpeed } from "./server_figures.js";

const ENDED = ["completed", "failed", "expired", "cancelled"];
const MAX_CHARS = 80; // of a text that somebody gave the batch

const cut = (text) => (text.length > MAX_CHARS ? `${text.slice(0, MAX_CHARS)}\u2026` : text);
export const stateOf = ({ status }) => status.replaceAll("_", " ");

export class BatchJob {
  #speed = new RowSpeed();
  #buttons = ""; // which are shown: pressed again and again, they stay the same elements

  // `actions` are save(fileId, name) and cancel(id).
  constructor(batch, actions) {
    this.actions = actions;
    this.name = h("h3", { id: `${batch.id}-name` }, h("code", null, batch.id));
    this.state = h("span", { class: "state" });
    this.bar = h("progress", { "aria-label": "Rows that were computed" });
    this.counts = h("p", { class: "counts" });
    this.errors = h("ul", { class: "error" });
    this.foot = h("div", { class: "row" });
    const about = h("p", { class: "soft" }, aboutOf(batch));
    this.element = h("li", { class: "job" }, h("div", { class: "row head" }, this.name, this.state), about, this.bar, this.counts, this.errors, this.foot);
    this.update(batch);
  }

  update(batch, nowS = performance.now() / 1000) {
    const { completed, failed } = batch.request_counts;
    const total = batch.status === "failed" ? 0 : batch.request_counts.total; // then none was computed
    this.batch = batch;
    if (batch.status === "in_progress") this.#speed.add(completed + failed, nowS);
    this.state.textContent = stateOf(batch);
    this.state.className = `state ${batch.status}`;
    set(this.bar, { hidden: !total, max: Math.max(1, total), value: completed + failed });
    const words = this.#words(total, completed + failed, failed);
    if (this.counts.textContent !== words) this.counts.textContent = words;
    this.#showErrors(batch.errors?.data ?? []);
    this.#showButtons(batch);
  }

  #words(total, done, failed) {
    if (!total) return "";
    const rate = this.batch.status === "in_progress" ? this.#speed.perS : null;
    const left = rate > 0 && `${duration((total - done) / rate)} left`;
    return [`${count(done)} of ${count(total)} rows`, failed > 0 && `${count(failed)} failed`, rate !== null && perSecond(rate), left].filter(Boolean).join(", ");
  }

  #showErrors(errors) {
    if (errors.length === this.errors.childElementCount) return; // a batch fails once
    replace(this.errors, errors.map(({ line, param, message }) => h("li", null, [line !== null && `Line ${line}`, param].filter(Boolean).join(", "), line !== null || param ? ": " : "", message)));
  }

  #showButtons({ id, status, output_file_id: output, error_file_id: error }) {
    const canCancel = !ENDED.includes(status) && status !== "cancelling";
    const shown = JSON.stringify([output, error, canCancel]);
    if (shown === this.#buttons) return;
    this.#buttons = shown;
    const named = { "aria-describedby": this.name.id };
    replace(this.foot,
      output && button("Save the answers", () => this.actions.save(output, `${id}_output.jsonl`), named),
      error && button("Save the errors", () => this.actions.save(error, `${id}_error.jsonl`), named),
      canCancel && cancelButton(() => this.actions.cancel(id), named));
  }
}

function aboutOf({ endpoint, created_at: created, metadata }) {
  const given = Object.entries(metadata ?? {}).map(([name, value]) => cut(`${name}: ${value}`));
  return [endpoint, `started ${new Date(1000 * created).toLocaleString()}`, ...given].join(" \u00b7 ");
}

// Pressed twice: what it ends does not go on.
function cancelButton(cancel, attributes) {
  let isSure = false;
  const say = (sure, words) => ((isSure = sure), (element.textContent = words));
  const element = button("Cancel", () => (isSure ? (say(false, "Cancel"), cancel()) : say(true, "Really cancel?")), { ...attributes, onblur: () => say(false, "Cancel") });
  return element;
}
