// Shapes: what an answer must be, checked while it is typed; the answer beside it, with what was forced and
// what was chosen; decisions as bars.

import { isAbort } from "../api.js";
import { decisionBars } from "../decision_bars.js";
import { fault, field, h, replace } from "../dom.js";
import { Figures } from "../figures.js";
import { ForcedText } from "../forced_text.js";
import { checkOf, EXAMPLES, KINDS, prettyJson, ShapeError, takeCall } from "../shape_kinds.js";
import { showAs } from "../show_as.js";
import { read, write } from "../storage.js";

export const title = "Shapes";

const CHECK_MS = 350; // after the last key
const NUM_ALTERNATIVES = 3;
const CHAT = "/v1/chat/completions", DECISIONS = "/v1/decisions";

export function mount(root, context) {
  return new ShapesView(root, context);
}

class ShapesView {
  #timer = null;
  #checking = null;
  #stop = null;

  constructor(root, context) {
    Object.assign(this, context);
    this.forced = new ForcedText();
    this.#build(root);
    this.#fill({ ...Object.values(EXAMPLES)[0], max_tokens: "128", ...read("shapes", {}) });
  }

  hide() {
    clearTimeout(this.#timer);
    this.#checking?.abort();
  }

  #build(root) {
    const option = (value, label) => h("option", { value }, label);
    const typed = () => this.#typed();
    this.examples = h("select", { onchange: () => this.#example() }, option("", "Choose one"), Object.keys(EXAMPLES).map((name) => option(name, name)));
    this.kind = h("select", { onchange: typed }, Object.entries(KINDS).map(([kind, { label }]) => option(kind, label)));
    this.input = h("textarea", { rows: 3, oninput: typed });
    this.shape = h("textarea", { rows: 12, class: "code", spellcheck: "false", oninput: typed });
    this.maxTokens = h("input", { type: "number", min: 1, step: 1, oninput: typed });
    root.addEventListener("keydown", (event) => this.#onKey(event));
    const message = field("Message", this.input), shape = field("Shape", this.shape, "Checked while you type. Ctrl+Enter asks for the answer.");
    this.inputFault = fault(this.input);
    this.shapeFault = fault(this.shape);
    const write = h("div", null,
      h("div", { class: "fields" }, field("Start from an example", this.examples), field("Kind of shape", this.kind), field("At most so many tokens", this.maxTokens)),
      message, this.inputFault.element, shape, this.shapeFault.element,
      this.#buttons(), this.settings.form());
    root.append(h("h2", { class: "unseen" }, title), h("div", { class: "two" }, write, this.#answerPart()));
  }

  #buttons() {
    const button = (words, onclick) => h("button", { type: "button", onclick }, words);
    this.askButton = button("Ask", () => this.#ask());
    this.askButton.classList.add("primary");
    this.stopButton = button("Stop", () => this.#stop?.abort());
    this.stopButton.disabled = true;
    this.verdict = h("span", { class: "soft verdict" });
    return h("div", { class: "row" }, this.askButton, this.stopButton, button("Show as", () => this.#showAs()), this.verdict);
  }

  #answerPart() {
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    this.summary = h("p", { class: "soft summary" });
    this.result = h("div", { class: "result" });
    this.bars = h("div", { class: "decisions" });
    return h("section", { class: "answer", "aria-label": "Answer" }, h("h2", null, "Answer"), this.error, this.forced.element, this.bars, this.result, this.summary);
  }

  #onKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#ask();
    if (event.key === "Escape") this.#stop?.abort();
  }

  #example() {
    const example = EXAMPLES[this.examples.value];
    if (example) this.#fill({ ...example, max_tokens: this.maxTokens.value });
    this.#typed();
  }

  #fill({ kind, input, shape, max_tokens: maxTokens }) {
    this.kind.value = Object.hasOwn(KINDS, kind) ? kind : "schema";
    Object.assign(this.input, { value: input });
    this.shape.value = shape;
    this.maxTokens.value = maxTokens;
  }

  // Checks

  #typed() {
    const { value: kind } = this.kind;
    write("shapes", { kind, input: this.input.value, shape: this.shape.value, max_tokens: this.maxTokens.value });
    clearTimeout(this.#timer);
    this.#checking?.abort();
    this.verdict.textContent = "";
    this.#timer = setTimeout(() => this.#check(), CHECK_MS);
  }

  // A decision is as cheap as its check: it is answered while one types.
  async #check() {
    const { isDecision } = KINDS[this.kind.value];
    if (isDecision) return this.#ask();
    const checking = (this.#checking = new AbortController());
    try {
      const { id } = await this.model();
      const { path, body } = checkOf(this.kind.value, id, KINDS[this.kind.value].fields(this.shape.value));
      await this.api.post(path, body, { signal: checking.signal });
      this.#showFault(null);
      this.verdict.textContent = "The server takes this shape.";
    } catch (error) {
      if (!isAbort(error)) this.#showFault(error);
    }
  }

  // At the field that is wrong, in the server's words.
  #showFault(error) {
    const isInput = /^(messages|input|prompt)/.test(error?.param ?? "");
    const isShape = error instanceof ShapeError || (error?.status === 400 && !isInput);
    this.shapeFault.show(isShape ? error.message : "");
    this.inputFault.show(isInput ? error.message : "");
    const other = error && !isShape && !isInput ? error.message : "";
    this.error.hidden = !other;
    this.error.textContent = other;
    if (error) this.verdict.textContent = "";
  }

  // Answers

  async #request() {
    const { id: model } = await this.model();
    const kind = KINDS[this.kind.value], fields = kind.fields(this.shape.value);
    if (kind.isDecision) return { path: DECISIONS, body: { model, input: this.input.value, ...fields } };
    return {
      path: CHAT,
      body: {
        model, messages: [{ role: "user", content: this.input.value }], ...this.settings.body(),
        max_tokens: Number(this.maxTokens.value || 128), ...fields,
        logprobs: true, top_logprobs: NUM_ALTERNATIVES, return_forced: true, stream: true, stream_options: { include_usage: true },
      },
    };
  }

  async #showAs() {
    try {
      showAs(await this.#request());
    } catch (error) {
      this.#showFault(error);
    }
  }

  async #ask() {
    this.#stop?.abort();
    clearTimeout(this.#timer);
    const stop = (this.#stop = new AbortController());
    this.stopButton.disabled = false;
    try {
      const request = await this.#request();
      this.#clear();
      await (request.path === DECISIONS ? this.#decide(request, stop.signal) : this.#generate(request, stop.signal));
      this.#showFault(null);
    } catch (error) {
      if (!isAbort(error)) this.#showFault(error);
    } finally {
      if (this.#stop === stop) this.#stop = null;
      this.stopButton.disabled = this.#stop === null;
    }
  }

  #clear() {
    this.forced.clear();
    for (const each of [this.result, this.bars, this.summary]) replace(each);
  }

  async #decide({ path, body }, signal) {
    const answer = await this.api.post(path, body, { signal });
    replace(this.bars, decisionBars(answer));
    const { input_tokens: tokens, input_tokens_details: details } = answer.usage;
    this.#say(`${tokens} tokens read, ${details.cached_tokens} of them from the cache; nothing was generated.`);
  }

  async #generate({ path, body }, signal) {
    const figures = new Figures(), calls = [];
    let text = "", ended = null;
    try {
      for await (const event of this.api.stream(path, body, { signal })) {
        figures.took(event);
        const [choice] = event.choices;
        if (!choice) continue;
        this.forced.add(choice);
        text += choice.delta.content ?? "";
        for (const call of choice.delta.tool_calls ?? []) takeCall(calls, call);
        ended = choice.finish_reason ?? ended;
      }
    } finally {
      this.#showResult(text, calls);
      const { numForced, numTokens } = this.forced;
      const share = numTokens && `${numForced} of ${numTokens} tokens were forced, ${numTokens - numForced} chosen`;
      const end = { length: "cut off by the limit of tokens", null: "stopped" }[ended];
      this.#say([share, `${figures}`, end].filter(Boolean).join("; "));
    }
  }

  #say(words) {
    this.summary.textContent = words;
    this.announce(words);
  }

  #showResult(text, calls) {
    const parts = calls.map(({ name, args }) => [h("h3", null, "Calls ", h("code", null, name)), h("pre", { tabindex: "0", "aria-label": `Arguments of ${name}` }, prettyJson(args) ?? args)]);
    const value = this.kind.value === "schema" ? prettyJson(text) : null;
    if (value !== null) parts.push(h("h3", null, "Read as JSON"), h("pre", { tabindex: "0", "aria-label": "The answer as JSON" }, value));
    replace(this.result, parts);
  }
}
