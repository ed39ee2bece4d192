// Server: live figures, what each request does now, the batches, the model and the machine. Asks /v1/server and,
// where files are kept, /v1/batches once a second while it is shown; the engine itself is only asked while it has requests.

import { isAbort } from "../api.js";
import { BatchList } from "../batch_list.js";
import { Chart } from "../charts.js";
import { field, h, replace } from "../dom.js";
import { bytes, count, duration, figures, percentOf, perSecond, requestRates } from "../server_figures.js";
import { read, write } from "../storage.js";

export const title = "Server";

const PATH = "/v1/server";
const PERIOD_MS = 1000;
const GIGA = 1e9; // of bytes, as bandwidths are told
const COLUMNS = ["Request", "Phase", "Age", "Prompt tokens", "In the KV cache", "Output tokens", "Speed", "Notes"];

export function mount(root, context) {
  return new ServerView(root, context);
}

class ServerView {
  #looking = null; // an AbortController while the view is shown
  #before = null;
  #isShown = false;

  constructor(root, { api, announce, onModel }) {
    this.api = api;
    this.batches = new BatchList({ api, announce });
    this.charts = {
      outputTokensPerS: new Chart("Generated tokens", perSecond),
      running: new Chart("Running", count),
      waiting: new Chart("Waiting", count),
      kvUsage: new Chart("KV cache in use", percentOf, { most: 1 }),
      prefixHits: new Chart("Prefix cache hits", percentOf, { most: 1 }),
      firstTokenS: new Chart("Time to first token", duration),
      interTokenS: new Chart("Between outputs", duration),
      bytesPerS: new Chart("Weights read", (value) => `${(value / GIGA).toFixed(1)} GB/s`),
      batchRowsPerS: new Chart("Batch rows", perSecond),
    };
    this.#build(root);
    onModel(() => this.#isShown && this.show()); // with a new key, too
  }

  #build(root) {
    this.state = h("p", { class: "soft" }, "Asking the server\u2026");
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    this.rows = h("tbody");
    this.others = h("p", { class: "soft" });
    this.facts = h("dl", { class: "facts" });
    this.share = h("p", { class: "soft" });
    this.bandwidth = h("input", { type: "number", min: 0, step: "any", value: read("bandwidth", ""), inputmode: "decimal" });
    this.bandwidth.addEventListener("change", () => write("bandwidth", this.bandwidth.value || null));
    const head = h("tr", null, COLUMNS.map((name) => h("th", { scope: "col" }, name)));
    const table = h("table", { "aria-label": "Requests that run or wait" }, h("thead", null, head), this.rows);
    root.append(
      h("h2", null, title), this.state, this.error,
      h("div", { class: "charts" }, Object.values(this.charts).map((chart) => chart.element)),
      h("h2", null, "Requests"), h("div", { class: "wide-table", tabindex: "0", role: "region", "aria-label": "Requests" }, table), this.others,
      this.batches.element,
      h("h2", null, "Model and machine"), this.facts,
      this.share,
      h("div", { class: "narrow" }, field("Memory bandwidth in GB/s", this.bandwidth, "As `gemma3-server doctor` measures it; kept in this browser.")),
    );
  }

  show() {
    this.#isShown = true;
    if (this.#looking) return;
    this.#looking = new AbortController();
    this.#before = null; // what happened unseen belongs to no second
    this.#look(this.#looking.signal);
  }

  hide() {
    this.#isShown = false;
    this.#stop();
  }

  #stop() {
    this.#looking?.abort();
    this.#looking = null;
  }

  async #look(signal) {
    while (!signal.aborted) {
      try {
        const now = await this.api.get(PATH, { signal });
        this.#take(now);
        await this.batches.look(now.batches, signal);
      } catch (error) {
        if (isAbort(error)) return;
        this.#fail(error);
        if (error.status === 401) return this.#stop(); // whoever gives no key is not asked every second
      }
      await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
    }
  }

  #fail(error) {
    this.#before = null;
    this.error.hidden = false;
    if (this.error.textContent !== error.message) this.error.textContent = error.message;
  }

  #take(now) {
    this.error.hidden = true;
    const found = figures(now, this.#before);
    for (const [name, chart] of Object.entries(this.charts)) chart.add(found[name]);
    this.charts.batchRowsPerS.element.hidden = !now.batches;
    replace(this.state, `${now.status}, up for ${duration(now.uptime_s)}, version ${now.version}`);
    this.#showRequests(now, requestRates(now, this.#before));
    this.#showFacts(now);
    this.#showShare(found.bytesPerS, now.model?.step_bytes);
    this.#before = now;
  }

  #showRequests(now, rates) {
    const rows = now.requests.map((row) => h("tr", null, cellsOf(row, rates.get(row.id)).map((cell, at) =>
      h(at ? "td" : "th", at ? null : { scope: "row" }, cell))));
    replace(this.rows, rows.length ? rows : h("tr", null, h("td", { colspan: COLUMNS.length, class: "soft" }, "No request runs or waits.")));
    const others = now.other_requests;
    replace(this.others, others ? `${others} more ${others === 1 ? "request is" : "requests are"} not shown: of other callers, or beyond the first hundred.` : "");
  }

  #showFacts(now) {
    const facts = Object.entries(factsOf(now)).filter(([, value]) => value !== null);
    const words = facts.map(([name, value]) => `${name}${value}`).join("");
    if (words === this.shownFacts) return; // a selection in them stays
    this.shownFacts = words;
    replace(this.facts, facts.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
  }

  // One stream decodes as fast as memory gives the weights, so this is how near the engine is to its limit.
  #showShare(bytesPerS, stepBytes) {
    const limit = Number(this.bandwidth.value) * GIGA;
    if (!stepBytes) return replace(this.share, "How much a step reads is only known on the native core.");
    const limits = limit > 0 ? ` ${perSecond(limit / stepBytes)} steps are what that bandwidth allows` : "";
    const share = limits && bytesPerS !== null ? `; now ${percentOf(bytesPerS / limit)} of it.` : limits && ".";
    replace(this.share, `Each step reads ${bytes(stepBytes)} of weights, whatever its size.${limits}${share}`);
  }
}

function cellsOf(row, rate) {
  const known = row.prompt_tokens + row.output_tokens / row.choices;
  const notes = [
    row.choices > 1 && `${row.choices} choices`,
    row.is_scoring && "scores options",
    row.is_constrained && `constrained, ${row.forced_tokens} forced`,
    row.accepted_draft_tokens > 0 && `${row.accepted_draft_tokens} guessed`,
  ];
  return [
    h("code", null, row.id), row.phase, duration(row.age_s),
    row.cached_tokens ? `${row.prompt_tokens}, ${row.cached_tokens} cached` : `${row.prompt_tokens}`,
    [h("progress", { value: row.computed_tokens, max: Math.max(1, known), "aria-label": "Computed" }), ` ${row.computed_tokens}`],
    row.is_scoring ? "\u2013" : `${row.output_tokens} of ${row.max_output_tokens}`,
    rate === null || rate === undefined || row.phase !== "decode" ? "\u2013" : perSecond(rate),
    notes.filter(Boolean).join(", "),
  ];
}

function factsOf({ model, machine, kv_cache: cache }) {
  const pool = (each) => `${count(each.used_blocks)} of ${count(each.blocks)} blocks, ${bytes(each.used_blocks * each.block_bytes)} of ${bytes(each.blocks * each.block_bytes)}`;
  const precision = model && (model.instruction_set ? `${model.quantization} weights, core for ${model.instruction_set}` : `${model.dtype} on torch, weights ${model.quantization}`);
  return {
    Model: model && model.names.join(", "),
    Kind: model && (model.is_instruction_tuned ? "instruction-tuned" : "base model"),
    Precision: precision,
    "Computes on": model && (model.threads ? `${model.device}, ${model.threads} thread${model.threads === 1 ? "" : "s"}` : model.device),
    Context: model && `${count(model.max_model_len)} tokens`,
    "KV cache, global layers": cache && pool(cache.global_layers),
    "KV cache, sliding layers": cache && pool(cache.sliding_layers),
    Processor: machine.processor,
    Machine: `${machine.architecture}, ${machine.processors} logical processors`,
    Memory: machine.memory_bytes && bytes(machine.memory_bytes),
    Fingerprint: model && model.system_fingerprint,
  };
}
