// The caller's batches, newest first, and a way to start one. Whoever shows it calls `look` once a second.

import { isAbort } from "./api.js";
import { BatchJob, stateOf } from "./batch_job.js";
import { BatchStart } from "./batch_start.js";
import { button, download, h } from "./dom.js";

const PAGE = 20;

export class BatchList {
  #jobs = new Map(); // by id
  #limit = PAGE;

  constructor({ api, announce }) {
    Object.assign(this, { api, announce });
    this.start = new BatchStart({ api, onStarted: (batch) => this.#started(batch) });
    this.none = h("p", { class: "soft" });
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    this.list = h("ol", { class: "jobs", "aria-label": "Batches" });
    this.more = button("Show more", () => (this.#limit += PAGE), { hidden: true });
    this.element = h("section", { "aria-label": "Jobs" }, h("h2", null, "Jobs"), this.none, this.start.element, this.error, this.list, this.more);
    this.start.element.hidden = true;
  }

  // `batches` are those of /v1/server: null where the server keeps no files.
  async look(batches, signal) {
    this.start.element.hidden = this.list.hidden = !batches;
    if (!batches) return this.#say("This server keeps no files, so it has no batches: start it with --data-dir DIR.");
    try {
      this.#take(batches, await this.api.get(`/v1/batches?limit=${this.#limit}`, { signal }));
    } catch (error) {
      if (isAbort(error)) throw error;
      this.#say(error.message);
    }
  }

  #take(batches, { data, has_more: hasMore }) {
    this.#show(data);
    this.more.hidden = !hasMore;
    const others = batches.in_progress - data.filter(({ status }) => status === "in_progress").length;
    this.#say([!data.length && "No batch yet.", others > 0 && `${others} more in progress, of other callers or further back.`].filter(Boolean).join(" "));
  }

  #say(words) {
    if (this.none.textContent !== words) this.none.textContent = words;
  }

  // An element stays where it is, with whatever has the focus in it.
  #show(data) {
    data.forEach((batch, at) => {
      const { element } = this.#job(batch);
      if (this.list.children[at] !== element) this.list.insertBefore(element, this.list.children[at] ?? null);
    });
    while (this.list.childElementCount > data.length) this.list.lastChild.remove();
    const shown = new Set(data.map(({ id }) => id));
    for (const id of this.#jobs.keys()) if (!shown.has(id)) this.#jobs.delete(id);
  }

  #job(batch) {
    const known = this.#jobs.get(batch.id);
    if (known && known.batch.status !== batch.status) this.announce(`${batch.id} is ${stateOf(batch)}`);
    if (known) known.update(batch);
    else this.#jobs.set(batch.id, new BatchJob(batch, { save: (id, name) => this.#save(id, name), cancel: (id) => this.#cancel(id) }));
    return this.#jobs.get(batch.id);
  }

  #started(batch) {
    this.list.prepend(this.#job(batch).element);
    this.announce(`${batch.id} is ${stateOf(batch)}`);
  }

  #save(fileId, name) {
    return this.#try(async () => download(name, await this.api.blob(`/v1/files/${fileId}/content`), "application/jsonl"));
  }

  #cancel(id) {
    return this.#try(async () => this.#job(await this.api.post(`/v1/batches/${id}/cancel`, {})));
  }

  async #try(act) {
    this.error.hidden = true;
    try {
      await act();
    } catch (error) {
      this.error.hidden = isAbort(error);
      this.error.textContent = error.message;
    }
  }
}
