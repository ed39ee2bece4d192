// Tokens in a row, coloured by their probability, and the alternatives of one of them beside it: under the mouse
// and at keyboard focus. Arrow keys go from token to token, down to the alternatives, Escape back.

import { h, replace } from "./dom.js";

const HIDE_MS = 250; // time for the mouse on its way to the alternatives
const LEVELS = 10;

export const percent = (logprob) => {
  const p = 100 * Math.exp(logprob);
  return `${p >= 10 ? p.toFixed(0) : p >= 0.1 ? p.toFixed(1) : p.toExponential(0)}%`;
};

// Of tokens as completion_tokens.js makes them.
export class TokenRow {
  #tokens = [];
  #hiding = null;

  // onBranch(at, id) is called when an alternative of the token `at` is chosen.
  constructor({ texts, onBranch }) {
    Object.assign(this, { texts, onBranch });
    this.row = h("div", { class: "tokens", role: "group", "aria-label": "Tokens", tabindex: -1 });
    this.popup = h("div", { class: "popup", role: "group", hidden: true });
    this.element = h("div", { class: "token-area" }, this.row, this.popup);
    this.row.addEventListener("focusin", ({ target }) => this.#showFor(target));
    this.row.addEventListener("mouseover", ({ target }) => this.#isPinned() || this.#showFor(target));
    this.row.addEventListener("click", ({ target }) => this.#enterPopup(target));
    this.element.addEventListener("mouseleave", () => this.#hideSoon());
    this.popup.addEventListener("mouseenter", () => clearTimeout(this.#hiding));
    this.element.addEventListener(
      "focusout",
      ({ relatedTarget }) => !this.element.contains(relatedTarget) && this.#hide(),
    );
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
  }

  // Keeps the focus, if it is within: arrow keys then go on from where it was.
  clear() {
    if (this.element.contains(document.activeElement)) this.row.focus({ preventScroll: true });
    this.#tokens = [];
    replace(this.row);
    this.#hide();
  }

  // The texts of all of them must be loaded.
  append(tokens) {
    for (const token of tokens) {
      const button = this.#button(token, this.#tokens.length);
      this.#tokens.push(token);
      this.row.append(button);
      if (this.texts.of(token.id).includes("\n")) this.row.append(h("br"));
    }
  }

  #button({ id, logprob, isPrompt }, at) {
    const shown = this.texts.shown(id);
    const level = logprob === null ? "none" : Math.min(LEVELS - 1, Math.floor(Math.exp(logprob) * LEVELS));
    const kinds = [`token p${level}`, isPrompt && "of-prompt", this.texts.isSpecial(id) && "special"];
    const label = logprob === null ? shown : `${shown} ${percent(logprob)}`;
    return h(
      "button",
      {
        type: "button",
        class: kinds.filter(Boolean).join(" "),
        "data-at": at,
        "aria-label": label,
        tabindex: at ? -1 : 0,
      },
      shown,
    );
  }

  // The alternatives

  #showFor(target) {
    if (target.dataset.at === undefined) return;
    clearTimeout(this.#hiding);
    const at = Number(target.dataset.at);
    if (this.popup.hidden || this.shownAt !== at) replace(this.popup, this.#content(at));
    this.shownAt = at;
    this.popup.hidden = false;
    this.popup.setAttribute("aria-label", `Alternatives of ${this.texts.shown(this.#tokens[at].id)}`);
    const room = this.element.clientWidth - this.popup.offsetWidth;
    this.popup.style.left = `${Math.max(0, Math.min(target.offsetLeft, room))}px`;
    this.popup.style.top = `${target.offsetTop + target.offsetHeight}px`;
  }

  #content(at) {
    const { id, logprob, top, numAsked, isPrompt, isDraft } = this.#tokens[at];
    const rank = top.findIndex((each) => each.id === id) + 1;
    const facts = [
      `id ${id}`,
      logprob !== null && `${percent(logprob)} (${logprob.toFixed(2)})`,
      rank > 0 && (rank > numAsked ? `beyond rank ${numAsked}` : `rank ${rank}`),
      isPrompt ? "of the prompt" : isDraft && "a draft that came true",
    ];
    return [
      h("p", null, h("strong", null, this.texts.shown(id)), " ", h("small", null, facts.filter(Boolean).join(", "))),
      top.length
        ? h(
            "ol",
            null,
            top.map((each) => this.#alternative(at, each, id)),
          )
        : h("p", { class: "soft" }, "No alternatives are known."),
    ];
  }

  #alternative(at, { id, logprob }, chosen) {
    const bar = h("meter", { min: 0, max: 1, value: Math.exp(logprob), "aria-hidden": "true" });
    const text = h("span", { class: "token-text" }, this.texts.shown(id));
    const button = h(
      "button",
      { type: "button", "aria-current": id === chosen, onclick: () => this.onBranch(at, id) },
      text,
      bar,
      h("span", null, percent(logprob)),
    );
    return h("li", null, button);
  }

  // The mouse takes nothing away from a person who has the focus within.
  #isPinned() {
    return this.popup.contains(document.activeElement);
  }

  #hideSoon() {
    clearTimeout(this.#hiding);
    this.#hiding = setTimeout(() => !this.element.contains(document.activeElement) && this.#hide(), HIDE_MS);
  }

  #hide() {
    clearTimeout(this.#hiding);
    this.popup.hidden = true;
  }

  #enterPopup(target) {
    if (target.dataset.at === undefined) return;
    this.#showFor(target);
    this.popup.querySelector("button")?.focus();
  }

  // Keys

  #onKey(event) {
    const isInPopup = this.popup.contains(event.target);
    const keys = isInPopup ? this.#popupKeys(event.target) : this.#rowKeys(event.target);
    const go = keys[event.key];
    if (!go || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    go();
  }

  #rowKeys(target) {
    const at = Number(target.dataset.at ?? this.shownAt);
    return {
      ArrowRight: () => this.#focus(at + 1),
      ArrowLeft: () => this.#focus(at - 1),
      Home: () => this.#focus(0),
      End: () => this.#focus(this.#tokens.length - 1),
      ArrowDown: () => this.#enterPopup(target),
      Escape: () => this.#hide(),
    };
  }

  #popupKeys(target) {
    const all = [...this.popup.querySelectorAll("button")];
    const at = all.indexOf(target);
    return {
      ArrowDown: () => all[Math.min(at + 1, all.length - 1)].focus(),
      ArrowUp: () => (at > 0 ? all[at - 1].focus() : this.#focus(this.shownAt)),
      Escape: () => this.#focus(this.shownAt),
    };
  }

  #focus(at) {
    const next = this.row.querySelector(`[data-at="${at}"]`);
    if (!next) return;
    this.row.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  }
}
