// An answer in which one sees what its shape forced and what the model chose: by colour, by an underline, and
// in words for whoever sees neither.

import { h, replace } from "./dom.js";
import { percent } from "./token_row.js";

const WORDS = { true: "forced", false: "chosen" };

export class ForcedText {
  #entries = [];
  #decoder = new TextDecoder();
  #run = null; // the last one: neighbours of one kind stand in one element

  constructor() {
    this.text = h("p", { class: "shaped", "aria-label": "The answer" });
    this.legend = h("p", { class: "soft legend" },
      h("span", { class: "forced" }, "forced"), " the shape left no choice; ", h("span", { class: "chosen" }, "chosen"), " by the model");
    this.rows = h("tbody");
    this.table = h("details", { ontoggle: () => this.table.open && this.#fillTable() }, h("summary", null, "Token by token"),
      h("div", { class: "wide-table", tabindex: "0", role: "region", "aria-label": "Tokens" },
        h("table", null, h("thead", null, h("tr", null, ["Token", "Forced or chosen", "Likelihood", "Likeliest"].map((name) => h("th", { scope: "col" }, name)))), this.rows)));
    this.element = h("div", { hidden: true }, this.text, this.legend, this.table);
  }

  clear() {
    this.#entries = [];
    this.#run = null;
    this.#decoder = new TextDecoder();
    replace(this.text);
    replace(this.rows);
    this.element.hidden = true;
  }

  // Of one choice of a chunk: log probabilities as chat has them, and as many flags.
  add({ logprobs, forced }) {
    (logprobs?.content ?? []).forEach((entry, at) => this.#add(entry, forced?.[at] === true));
    this.element.hidden = !this.#entries.length;
    if (this.table.open) this.#fillTable();
  }

  get numForced() {
    return this.#entries.filter((entry) => entry.isForced).length;
  }

  get numTokens() {
    return this.#entries.length;
  }

  // Characters may be spread over tokens: what is not whole yet comes with the next one.
  #add(entry, isForced) {
    this.#entries.push({ ...entry, isForced });
    const text = this.#decoder.decode(new Uint8Array(entry.bytes), { stream: true });
    if (this.#run?.isForced !== isForced) {
      const element = h("span", { class: WORDS[isForced] }, h("span", { class: "unseen" }, ` ${WORDS[isForced]}: `));
      this.#run = { isForced, element };
      this.text.append(element);
    }
    this.#run.element.append(h("span", { class: "piece", title: `${WORDS[isForced]}, ${percent(entry.logprob)} likely` }, text));
  }

  #fillTable() {
    replace(this.rows, this.#entries.map(({ token, logprob, isForced, top_logprobs: top }) => h("tr", null,
      h("th", { scope: "row" }, h("code", null, JSON.stringify(token))), h("td", null, WORDS[isForced]), h("td", null, percent(logprob)),
      h("td", null, top.map((other, at) => [at ? ", " : "", h("code", null, JSON.stringify(other.token)), ` ${percent(other.logprob)}`])))));
  }
}
