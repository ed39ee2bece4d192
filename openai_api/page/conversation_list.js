// The conversations in a list: which is open, and a button to forget each.

import { button, h, replace } from "./dom.js";

export class ConversationList {
  element = h("ul", { class: "conversations" });

  // onOpen and onRemove are called with a conversation.
  constructor({ onOpen, onRemove }) {
    Object.assign(this, { onOpen, onRemove });
  }

  show(conversations, current) {
    replace(
      this.element,
      conversations.map((each) => this.#item(each, each === current)),
    );
  }

  #item(each, isCurrent) {
    return h(
      "li",
      null,
      button(each.title, () => this.onOpen(each), { "aria-current": isCurrent }),
      button("\u00d7", () => this.onRemove(each), { class: "plain", "aria-label": `Delete ${each.title}` }),
    );
  }
}
