// A way to start a batch: a JSONL file, chosen or dropped, is uploaded and made one. What the server has against
// it stands at the field that is wrong.

import { isAbort } from "./api.js";
import { button, fault, field, h } from "./dom.js";

const ENDPOINTS = ["/v1/chat/completions", "/v1/completions", "/v1/decisions"];
const HEAD_BYTES = 64 * 1024; // of a file, in which its first line should end

export class BatchStart {
  #stop = null;

  // onStarted(batch) is told of each.
  constructor({ api, onStarted }) {
    Object.assign(this, { api, onStarted });
    this.file = h("input", { type: "file", accept: ".jsonl,.ndjson,.txt", onchange: () => this.#chosen() });
    this.endpoint = h("select", null, ENDPOINTS.map((path) => h("option", { value: path }, path)));
    this.startButton = button("Start", () => this.#start(), { class: "primary" });
    this.stopButton = button("Stop", () => this.#stop?.abort(), { disabled: true });
    this.state = h("p", { class: "soft", role: "status" });
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    const fields = h("div", { class: "fields" },
      field("File of requests", this.file, "JSONL, a request a line with custom_id, method, url and body. It can be dropped here."),
      field("Endpoint", this.endpoint, "As in the url of its lines."));
    this.faults = { file: fault(this.file), endpoint: fault(this.endpoint) };
    this.element = h("div", { class: "drop", role: "group", "aria-label": "Start a batch", ondragover: (event) => this.#over(event, true), ondragleave: (event) => this.#over(event, false), ondrop: (event) => this.#drop(event) },
      h("h3", null, "Start a batch"), fields, this.faults.file.element, this.faults.endpoint.element,
      h("div", { class: "row" }, this.startButton, this.stopButton), this.state, this.error);
  }

  #over(event, isOver) {
    event.preventDefault();
    this.element.classList.toggle("over", isOver);
  }

  #drop(event) {
    this.#over(event, false);
    if (!event.dataTransfer.files.length) return;
    this.file.files = event.dataTransfer.files;
    this.#chosen();
  }

  // The first line says which endpoint is meant.
  async #chosen() {
    this.#showFault(null);
    const head = await this.file.files[0]?.slice(0, HEAD_BYTES).text();
    const url = urlOf(head?.split("\n")[0]);
    if (ENDPOINTS.includes(url)) this.endpoint.value = url;
  }

  #showFault(error) {
    const place = { file: "file", purpose: "file", input_file_id: "file", endpoint: "endpoint" }[error?.param];
    for (const [name, each] of Object.entries(this.faults)) each.show(name === place ? error.message : "");
    this.error.hidden = !error || place !== undefined;
    this.error.textContent = this.error.hidden ? "" : error.message;
  }

  async #start() {
    const [file] = this.file.files;
    if (!file) return this.#showFault({ param: "file", message: "Choose a file first." });
    this.#showFault(null);
    this.#stop = new AbortController();
    this.#showState(`Uploading ${file.name}\u2026`);
    try {
      this.onStarted(await this.#batchOf(await this.#uploaded(file), file.name));
      this.file.value = "";
    } catch (error) {
      if (!isAbort(error)) this.#showFault(error);
    } finally {
      this.#stop = null;
      this.#showState("");
    }
  }

  #showState(words) {
    this.state.textContent = words;
    this.startButton.disabled = this.#stop !== null;
    this.stopButton.disabled = this.#stop === null;
  }

  async #uploaded(file) {
    const form = new FormData();
    form.append("purpose", "batch");
    form.append("file", file);
    try {
      return await this.api.upload("/v1/files", form, { signal: this.#stop.signal });
    } catch (error) {
      if (error.status === 413 || error.status === 408) error.param = "file"; // it is too large, or comes too slowly
      throw error;
    }
  }

  // A file that becomes no batch is not left behind.
  async #batchOf({ id }, name) {
    const body = { input_file_id: id, endpoint: this.endpoint.value, completion_window: "24h", metadata: { file: name.slice(0, 512) } };
    try {
      return await this.api.post("/v1/batches", body, { signal: this.#stop.signal });
    } catch (error) {
      await this.api.delete(`/v1/files/${id}`).catch(() => {});
      throw error;
    }
  }
}

function urlOf(line) {
  try {
    return JSON.parse(line)?.url;
  } catch {
    return undefined; // the server says what is wrong with it
  }
}
