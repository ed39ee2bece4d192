// Text: a completion, token by token, with what else each token might have been, and a way on from there.

import { isAbort } from "../api.js";
import { tokensOf } from "../completion_tokens.js";
import { button, field, h, replace } from "../dom.js";
import { Figures, usageWords } from "../figures.js";
import { showAs } from "../show_as.js";
import { read, write } from "../storage.js";
import { TokenRow } from "../token_row.js";
import { TokenTexts } from "../token_texts.js";

export const title = "Text";

const PATH = "/v1/completions";
const DRAW_MS = 50; // texts of tokens are asked for that often
const STANDARD = {
  prompt: "The capital of France is",
  max_tokens: "48",
  alternatives: "8",
  shows_prompt: true,
  parse_special: false,
};
const LIKELIHOODS = ["p0", "p2", "p4", "p6", "p8", "p9"];

export function mount(root, context) {
  return new TextView(root, context);
}

class TextView {
  #tokens = []; // all, those of the prompt too
  #numDrawn = 0;
  #earlier = []; // the tokens before each branch
  #stop = null;
  drawing = Promise.resolve();

  constructor(root, context) {
    Object.assign(this, context);
    this.texts = new TokenTexts(this.api);
    this.row = new TokenRow({ texts: this.texts, onBranch: (at, id) => this.#branch(at, id) });
    this.#build(root, { ...STANDARD, ...read("text", {}) });
    this.#showState();
  }

  #build(root, kept) {
    const number = (name, max) =>
      h("input", { type: "number", min: 0, max, step: 1, value: kept[name], onchange: () => this.#keep() });
    const check = (name) =>
      h("input", { type: "checkbox", checked: kept[name] === true, onchange: () => this.#keep() });
    this.prompt = h("textarea", { rows: 4, class: "code", spellcheck: "false", onchange: () => this.#keep() });
    this.prompt.value = kept.prompt;
    this.maxTokens = number("max_tokens", null);
    this.alternatives = number("alternatives", 20);
    this.showsPrompt = check("shows_prompt");
    this.parseSpecial = check("parse_special");
    this.prompt.addEventListener(
      "keydown",
      (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.#complete(),
    );
    root.addEventListener("keydown", (event) => event.key === "Escape" && this.#stop?.abort());
    this.summary = h("p", { class: "soft summary" });
    this.error = h("p", { class: "error", hidden: true });
    const legend = h(
      "p",
      { class: "legend soft", "aria-hidden": "true" },
      "unlikely ",
      LIKELIHOODS.map((p) => h("span", { class: `token ${p}` }, " ")),
      " likely",
    );
    root.append(
      h("h2", { class: "unseen" }, title),
      field("Prompt", this.prompt, "Ctrl+Enter completes it."),
      this.#options(),
      this.#buttons(),
      this.settings.form(),
      this.error,
      this.summary,
      this.row.element,
      legend,
    );
  }

  #options() {
    const labelled = (control, words) => h("label", { class: "check" }, control, words);
    return h(
      "div",
      { class: "fields" },
      field("At most so many tokens", this.maxTokens),
      field("Alternatives of each", this.alternatives),
      labelled(this.showsPrompt, "Probabilities of the prompt too"),
      labelled(this.parseSpecial, "Control tokens by name, as <end_of_turn>"),
    );
  }

  #buttons() {
    this.completeButton = button("Complete", () => this.#complete(), { class: "primary" });
    this.stopButton = button("Stop", () => this.#stop?.abort());
    this.backButton = button("Back to before the branch", () => this.#back());
    this.moreButton = button("Continue", () => this.#run(this.#tokens, this.#idsOf(this.#tokens)));
    return h(
      "div",
      { class: "row" },
      this.completeButton,
      this.stopButton,
      this.moreButton,
      this.backButton,
      button("Show as", async () => showAs({ path: PATH, body: await this.#body(this.prompt.value, []) })),
    );
  }

  #keep() {
    write("text", {
      prompt: this.prompt.value,
      max_tokens: this.maxTokens.value,
      alternatives: this.alternatives.value,
      shows_prompt: this.showsPrompt.checked,
      parse_special: this.parseSpecial.checked,
    });
  }

  #showState() {
    this.completeButton.disabled = this.#stop !== null;
    this.stopButton.disabled = this.#stop === null;
    this.moreButton.disabled = this.#stop !== null || !this.#tokens.length;
    this.backButton.hidden = !this.#earlier.length;
  }

  // Requests

  // Ids in place of texts: two tokens may have one text. What is known of the prompt is not asked for again, so
  // that its prefix can come from the cache.
  async #body(prompt, known) {
    const { id: model } = await this.model();
    const echo = known.length === 0 && this.showsPrompt.checked;
    const parse = typeof prompt === "string" && this.parseSpecial.checked ? { parse_special: true } : {};
    return {
      model,
      prompt,
      ...parse,
      ...(echo ? { echo } : {}),
      ...this.settings.body(),
      max_tokens: Number(this.maxTokens.value || 16),
      logprobs: Number(this.alternatives.value || 0),
      return_tokens_as_token_ids: true,
      return_token_ids: true,
      stream: true,
      stream_options: { include_usage: true },
    };
  }

  #complete() {
    if (this.#stop) return;
    this.#earlier = [];
    this.#run([], this.prompt.value);
  }

  #branch(at, id) {
    const { top } = this.#tokens[at];
    const chosen = {
      ...this.#tokens[at],
      id,
      logprob: top.find((each) => each.id === id).logprob,
      isPrompt: true,
      isDraft: false,
    };
    const kept = [...this.#tokens.slice(0, at), chosen];
    this.#earlier.push(this.#tokens);
    this.announce(`On with ${this.texts.shown(id)}`);
    this.#run(kept, this.#idsOf(kept));
  }

  async #back() {
    this.#stop?.abort();
    this.#start(this.#earlier.pop());
    await this.#draw();
    this.#showState();
  }

  #idsOf(tokens) {
    return tokens.map(({ id }) => id);
  }

  #start(tokens) {
    this.#tokens = [...tokens];
    this.#numDrawn = 0;
    this.row.clear();
    replace(this.summary);
    this.error.hidden = true;
  }

  // `known` tokens are shown in front of what comes; they are the prompt then.
  async #run(known, prompt) {
    this.#stop?.abort();
    const stop = (this.#stop = new AbortController());
    this.#start(known);
    this.#showState();
    const outcome = await this.#take(known, prompt, stop.signal);
    if (this.#stop !== stop) return;
    this.#stop = null;
    await this.#draw().catch(() => {});
    this.#showState();
    this.error.hidden = !outcome.error;
    this.error.textContent = outcome.error ?? "";
    this.summary.textContent = outcome.words;
    this.announce(outcome.error ?? outcome.words);
  }

  async #take(known, prompt, signal) {
    const figures = new Figures();
    let ended = "";
    let error = null;
    const drawing = setInterval(() => this.#draw().catch(() => {}), DRAW_MS);
    try {
      const body = await this.#body(prompt, known);
      for await (const event of this.api.stream(PATH, body, { signal })) {
        figures.took(event);
        for (const choice of event.choices) {
          this.#tokens.push(...tokensOf(choice, { hasPrompt: this.#tokens.length > 0, numAsked: body.logprobs }));
          ended = choice.finish_reason ?? ended;
        }
      }
    } catch (failure) {
      ended = "stopped";
      error = isAbort(failure) ? null : failure.message;
    } finally {
      clearInterval(drawing);
    }
    const numDrafts = this.#tokens.slice(known.length).filter(({ isDraft }) => isDraft).length;
    return { error, words: usageWords(figures, { ended, numDrafts }) };
  }

  // Adds what came since, as soon as its texts are there: one call after the other.
  #draw() {
    this.drawing = this.drawing.catch(() => {}).then(() => this.#drawFresh());
    return this.drawing;
  }

  async #drawFresh() {
    const tokens = this.#tokens;
    const fresh = tokens.slice(this.#numDrawn);
    await this.texts.load(fresh.flatMap(({ id, top }) => [id, ...this.#idsOf(top)]));
    if (tokens !== this.#tokens) return;
    this.row.append(fresh);
    this.#numDrawn += fresh.length;
  }
}
