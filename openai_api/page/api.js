// Requests of this server: with the key, as JSON or as a stream of events, ended by an AbortSignal. What fails
// is an ApiError whose message a person can read. Knows nothing of views.

const RETRY_MS = 1000;

export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

export const isAbort = (error) => error?.name === "AbortError";

export class Api {
  #key = null;
  #watching = false;

  // askForKey(words) resolves to a key, or to null if the person gives none; it is asked once for all that wait.
  // onState is told "gone", "loading" or "ready", the last only after one of the others.
  constructor({ askForKey, onState }) {
    Object.assign(this, { askForKey, onState });
  }

  set key(key) {
    this.#key = key || null;
  }

  get hasKey() {
    return this.#key !== null;
  }

  async get(path, { signal } = {}) {
    return (await this.#request(path, { signal })).json();
  }

  async text(path, { signal } = {}) {
    return (await this.#request(path, { signal })).text();
  }

  async post(path, body, { signal } = {}) {
    return (await this.#request(path, { method: "POST", body: JSON.stringify(body), signal })).json();
  }

  async blob(path, { signal } = {}) {
    return (await this.#request(path, { signal })).blob();
  }

  async upload(path, form, { signal } = {}) {
    return (await this.#request(path, { method: "POST", body: form, signal })).json();
  }

  async delete(path) {
    return (await this.#request(path, { method: "DELETE" })).json();
  }

  // The JSON of each server-sent event. Raises ApiError for an event that is an error and for a stream that
  // breaks off.
  async *stream(path, body, { signal } = {}) {
    const response = await this.#request(path, { method: "POST", body: JSON.stringify(body), signal });
    for await (const data of this.#events(response)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(event.error.message, event.error);
      yield event;
    }
    this.#watch("gone");
    throw new ApiError("The answer broke off: the server ended the stream.");
  }

  // Lines, not blocks: a comment has no empty line behind it (docs/api.md).
  async *#events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      while (true) {
        const { value, done } = await this.#read(reader);
        if (done) return;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6).trimEnd();
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  async #read(reader) {
    try {
      return await reader.read();
    } catch (error) {
      throw this.#readable(error);
    }
  }

  async #request(path, options) {
    const headers = typeof options.body === "string" ? { "Content-Type": "application/json" } : {};
    while (true) {
      if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
      const response = await this.#fetch(path, { ...options, headers, cache: "no-store" });
      if (response.ok) return response;
      const error = await errorOf(response);
      if (error.code === "not_ready") this.#watch("loading");
      if (response.status !== 401) throw error;
      const key = await this.askForKey(
        this.#key ? "This key is not one of the server's." : "This server asks for a key.",
      );
      if (!key) throw error;
      this.#key = key;
    }
  }

  async #fetch(path, options) {
    try {
      return await fetch(path, options);
    } catch (error) {
      throw this.#readable(error);
    }
  }

  #readable(error) {
    if (isAbort(error)) return error;
    this.#watch("gone");
    return new ApiError("The server does not answer. It may have been stopped.");
  }

  // Asks /health, which needs no key and no model, until it is well; not while nobody looks.
  async #watch(state) {
    if (this.#watching) return;
    this.#watching = true;
    while (state !== "ready") {
      this.onState(state);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      if (!document.hidden) state = await healthState();
    }
    this.#watching = false;
    this.onState("ready");
  }
}

async function healthState() {
  try {
    return (await fetch("/health", { cache: "no-store" })).ok ? "ready" : "loading";
  } catch {
    return "gone";
  }
}

async function errorOf(response) {
  const status = response.status;
  try {
    const { error } = await response.json();
    return new ApiError(error.message, { ...error, status });
  } catch {
    return new ApiError(`The server answered with status ${status}.`, { status });
  }
}
