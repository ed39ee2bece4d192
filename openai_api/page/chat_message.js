// One message of a chat as an element: its text, what can be done with it, and how it is edited.

import { copyButton, h, replace } from "./dom.js";
import { markdown } from "./markdown.js";

const NAMES = { user: "You", assistant: "Model" };

// `actions` are regenerate(), resend(content) and showAs(), each missing where it makes no sense.
export class ChatMessage {
  constructor(message, actions) {
    Object.assign(this, { message, actions });
    this.body = h("div", { class: "body" });
    this.foot = h("div", { class: "row actions" });
    const name = NAMES[message.role] ?? message.role;
    this.element = h("li", { class: `message ${message.role}` }, h("h3", null, name), this.body, this.foot);
    this.render();
  }

  // Shows the text as it is now. An answer that still grows has no actions.
  render({ isGrowing = false } = {}) {
    const { role, content, error, isStopped } = this.message;
    this.element.setAttribute("aria-busy", isGrowing);
    this.body.classList.toggle("busy", isGrowing && !content);
    const text =
      role === "assistant" ? markdown(content || (isGrowing ? "..." : "")) : h("p", { class: "plain-text" }, content);
    replace(
      this.body,
      text,
      isStopped && h("p", { class: "soft" }, "Stopped."),
      error && h("p", { class: "error" }, error),
    );
    replace(this.foot, isGrowing ? null : this.#actions());
  }

  #actions() {
    const { regenerate, resend, showAs } = this.actions;
    const button = (words, onclick) => onclick && h("button", { type: "button", class: "plain", onclick }, words);
    const copy = copyButton("Copy", () => this.message.content);
    copy.classList.add("plain");
    return [
      button("Edit", resend && (() => this.#edit(resend))),
      button("Regenerate", regenerate),
      button("Show as", showAs),
      this.message.content && copy,
      this.message.figures && h("small", null, this.message.figures),
    ];
  }

  #edit(resend) {
    const input = h("textarea", { rows: 3, "aria-label": "The message, edited" }, this.message.content);
    const send = () => input.value.trim() && resend(input.value);
    const cancel = () => this.render();
    input.addEventListener("keydown", (event) => {
      if (isSend(event)) send();
      if (event.key === "Escape") cancel();
    });
    const row = h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "primary", onclick: send }, "Send again"),
      h("button", { type: "button", onclick: cancel }, "Cancel"),
      h("small", null, "What follows is forgotten."),
    );
    replace(this.body, input, row);
    replace(this.foot);
    input.focus();
  }
}

// Enter, but not the one that ends the composition of a character, nor one with Shift, which is a new line.
export function isSend(event) {
  const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing;
  if (sends) event.preventDefault();
  return sends;
}
