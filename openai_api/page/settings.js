// The sampling settings: one set for all views, kept in this browser. Ranges, defaults and what each does come
// from /v1/capabilities; an empty field is not sent, so the server's (or the checkpoint's) default holds.

import { field, h, replace } from "./dom.js";
import { read, write } from "./storage.js";

const NUMBERS = {
  temperature: ["Temperature", 0.05],
  top_k: ["Top k", 1],
  top_p: ["Top p", 0.01],
  min_p: ["Min p", 0.01],
  repetition_penalty: ["Repetition penalty", 0.05],
  frequency_penalty: ["Frequency penalty", 0.1],
  presence_penalty: ["Presence penalty", 0.1],
  seed: ["Seed", 1],
};

export class Settings {
  #values = valid(read("settings", {}));
  #notes = null;

  constructor(api) {
    this.api = api;
  }

  // What a request's body has of them: numbers under their names, and `stop` as a list.
  body() {
    return structuredClone(this.#values);
  }

  // A new form, closed at first, that asks the server for the ranges when it is opened.
  form() {
    const fields = h("div", { class: "fields" });
    const form = h("details", { class: "settings", ontoggle: open }, h("summary", null, "Sampling settings"), fields);
    const fill = () => replace(fields, this.#fields(), h("button", { type: "button", onclick: reset }, "All defaults"));
    const reset = () => {
      this.#keep({});
      fill();
    };
    const load = async () => {
      fill();
      if (await this.#loadNotes()) fill();
    };
    function open() {
      if (form.open) load();
    }
    return form;
  }

  async #loadNotes() {
    if (this.#notes) return false;
    try {
      this.#notes = (await this.api.get("/v1/capabilities")).endpoints["/v1/completions"].exact;
    } catch {
      return false; // the fields work without; the server checks each value anyway
    }
    return true;
  }

  #fields() {
    const numbers = Object.entries(NUMBERS).map(([name, [label, step]]) => this.#number(name, label, step));
    const stop = h("textarea", { rows: 2, onchange: () => this.#setStop(stop.value), spellcheck: "false" });
    stop.value = (this.#values.stop ?? []).join("\n");
    return [...numbers, field("Stop strings, one a line", stop, "They end the answer and are not sent.")];
  }

  #number(name, label, step) {
    const { low, high, standard, does } = readNote(this.#notes?.[name] ?? "");
    const input = h("input", {
      type: "number",
      step,
      min: low,
      max: high,
      placeholder: standard,
      inputmode: "decimal",
      name,
      value: this.#values[name] ?? "",
      onchange: () => this.#set(name, input.value === "" ? undefined : Number(input.value)),
    });
    return field(label, input, does);
  }

  #setStop(text) {
    const lines = text.split("\n").filter(Boolean);
    this.#set("stop", lines.length ? lines : undefined);
  }

  #set(name, value) {
    this.#keep({ ...this.#values, [name]: value });
  }

  #keep(values) {
    this.#values = JSON.parse(JSON.stringify(values)); // without what is undefined
    write("settings", this.#values);
  }
}

// Of a browser's storage anything can be expected.
function valid(values) {
  const isValid = ([name, value]) =>
    name === "stop" ? Array.isArray(value) : name in NUMBERS && Number.isFinite(value);
  return Object.fromEntries(Object.entries(values).filter(isValid));
}

// "a number from 0 to 2, default 1 or the checkpoint's: 0 is exact argmax" in parts; what is missing is null.
export function readNote(note) {
  const [facts, ...rest] = note.split(": ");
  const number = (pattern) => facts.match(pattern)?.[1] ?? null;
  return {
    low: number(/(?:from|above) (-?[\d.]+)/),
    high: number(/to (-?[\d.]+)/),
    standard: number(/default ([^,]+)/),
    does: rest.join(": ") || null,
  };
}
