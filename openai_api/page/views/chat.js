// Chat: conversations with the model, streamed. One answer at a time; another conversation stops it.

import { isAbort } from "../api.js";
import { ChatMessage, isSend } from "../chat_message.js";
import { ConversationList } from "../conversation_list.js";
import { Conversations, asJson, asMarkdown, messagesOf } from "../conversations.js";
import { button, download, field, h, replace } from "../dom.js";
import { Figures } from "../figures.js";
import { showAs } from "../show_as.js";
import { read, write } from "../storage.js";

export const title = "Chat";

const PATH = "/v1/chat/completions";
const NEAR_END_PX = 80;

export function mount(root, context) {
  return new ChatView(root, context);
}

class ChatView {
  #store = new Conversations();
  #conversation;
  #stop = null; // the AbortController of the answer that grows
  #shown = [];

  constructor(root, context) {
    Object.assign(this, context);
    this.#conversation = this.#store.all[0] ?? this.#store.create();
    this.#build(root);
    this.onModel((card) => (this.note.hidden = card.is_instruction_tuned));
    this.#open(this.#conversation);
  }

  show() {
    this.input.focus({ preventScroll: true });
  }

  #build(root) {
    this.list = new ConversationList({
      onOpen: (each) => this.#open(each),
      onRemove: (each) => this.#remove(each),
    });
    this.messages = h("ol", { class: "messages", tabindex: "0", "aria-label": "Messages" });
    this.note = h(
      "p",
      { class: "note", hidden: true },
      "This model is not tuned to follow instructions: it continues the conversation as a text. ",
      h("a", { href: "#text" }, "Text"),
      " shows what it is made for.",
    );
    root.append(
      h("h2", { class: "unseen" }, title),
      h(
        "details",
        { class: "side", open: matchMedia("(min-width: 60rem)").matches },
        h("summary", null, "Conversations"),
        button("New chat", () => this.#open(this.#store.create())),
        this.list.element,
      ),
      h("div", { class: "talk" }, this.note, this.messages, this.#composer(), this.#options()),
    );
  }

  #composer() {
    this.input = h("textarea", {
      rows: 2,
      "aria-label": "Message",
      placeholder: "Message (Enter sends, Shift+Enter is a new line)",
    });
    this.input.addEventListener("keydown", (event) => isSend(event) && this.#send());
    this.sendButton = button("Send", () => this.#send(), { class: "primary" });
    this.stopButton = button("Stop", () => this.#stop?.abort());
    const composer = h("div", { class: "composer" }, this.input, this.sendButton, this.stopButton);
    composer.addEventListener("keydown", (event) => event.key === "Escape" && this.#stop?.abort());
    return composer;
  }

  #options() {
    this.system = h("textarea", { rows: 2, onchange: () => this.#setSystem(), placeholder: "none" });
    this.maxTokens = h("input", {
      type: "number",
      min: 1,
      step: 1,
      placeholder: "as many as there is room for",
      value: read("chat_max_tokens", ""),
      onchange: () => write("chat_max_tokens", this.maxTokens.value || null),
    });
    const save = (ending, type, text) => () =>
      download(
        `${this.#conversation.title.replace(/[^\w -]+/g, "").trim() || "chat"}.${ending}`,
        text(this.#conversation),
        type,
      );
    const more = h(
      "details",
      null,
      h("summary", null, "System text, length, export"),
      h("div", { class: "fields" }, field("System text", this.system), field("At most so many tokens", this.maxTokens)),
      h(
        "div",
        { class: "row" },
        button("Export JSON", save("json", "application/json", asJson)),
        button("Export Markdown", save("md", "text/markdown", asMarkdown)),
        button("Show as curl, Python, JavaScript", () => this.#showAs(this.#conversation.messages)),
      ),
    );
    return h("div", { class: "options" }, more, this.settings.form());
  }

  #setSystem() {
    this.#conversation.system = this.system.value;
    if (this.#conversation.messages.length) this.#store.save(this.#conversation);
  }

  // Conversations

  #open(conversation) {
    this.#stop?.abort();
    this.#conversation = conversation;
    this.system.value = conversation.system;
    this.#showAll();
    this.input.focus({ preventScroll: true });
  }

  #remove(conversation) {
    this.#store.remove(conversation);
    if (conversation === this.#conversation) this.#open(this.#store.all[0] ?? this.#store.create());
    else this.#showList();
  }

  #showList() {
    this.list.show(this.#store.all, this.#conversation);
  }

  #showAll() {
    const messages = this.#conversation.messages;
    this.#shown = messages.map((message, at) => new ChatMessage(message, this.#actions(message, at)));
    replace(
      this.messages,
      this.#shown.length ? this.#shown.map(({ element }) => element) : h("li", { class: "soft" }, "Say something."),
    );
    this.#scrollToEnd();
    this.#showList();
    this.#showState();
  }

  #actions(message, at) {
    const before = this.#conversation.messages.slice(0, at);
    if (message.role === "user") return { resend: (content) => this.#answer([...before, { role: "user", content }]) };
    return { regenerate: () => this.#answer(before), showAs: () => this.#showAs(before) };
  }

  #showState() {
    this.sendButton.disabled = this.#stop !== null;
    this.stopButton.disabled = this.#stop === null;
  }

  #scrollToEnd() {
    this.messages.scrollTop = this.messages.scrollHeight;
  }

  // Requests

  async #bodyFor(messages) {
    const { id: model } = await this.model();
    const max = this.maxTokens.value ? { max_tokens: Number(this.maxTokens.value) } : {};
    const said = messagesOf({ system: this.system.value, messages });
    return {
      model,
      messages: said,
      ...this.settings.body(),
      ...max,
      stream: true,
      stream_options: { include_usage: true },
    };
  }

  async #showAs(messages) {
    const asked = messages.at(-1)?.role === "assistant" ? messages.slice(0, -1) : messages;
    showAs({ path: PATH, body: await this.#bodyFor(asked.length ? asked : [{ role: "user", content: "Hello" }]) });
  }

  #send() {
    const content = this.input.value;
    if (!content.trim() || this.#stop) return;
    this.input.value = "";
    this.#conversation.system = this.system.value;
    this.#answer([...this.#conversation.messages, { role: "user", content }]);
  }

  // Takes `messages` for the conversation and adds the model's answer to them.
  async #answer(messages) {
    this.#stop?.abort();
    const conversation = this.#conversation;
    const message = { role: "assistant", content: "" };
    const stop = (this.#stop = new AbortController());
    conversation.messages = [...messages, message];
    this.#store.save(conversation);
    this.#showAll();
    this.input.focus({ preventScroll: true }); // the button that was pressed is gone
    const shown = this.#shown.at(-1);
    shown.render({ isGrowing: true });
    await this.#grow(message, { messages, shown, signal: stop.signal });
    this.#store.save(conversation);
    if (this.#stop !== stop) return; // another answer, or another conversation, took its place
    this.#stop = null;
    shown.render();
    this.#showList();
    this.#showState();
    this.announce(message.error ?? `The model said: ${message.content}`);
  }

  async #grow(message, { messages, shown, signal }) {
    const figures = new Figures();
    try {
      const body = await this.#bodyFor(messages);
      for await (const event of this.api.stream(PATH, body, { signal })) {
        figures.took(event);
        message.content += event.choices[0]?.delta.content ?? "";
        this.#draw(shown);
      }
    } catch (error) {
      Object.assign(message, isAbort(error) ? { isStopped: true } : { error: error.message });
    }
    message.figures = `${figures}`;
  }

  // At most once a frame: a token takes less.
  #draw(shown) {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      const { scrollTop, scrollHeight, clientHeight } = this.messages;
      if (this.#stop) shown.render({ isGrowing: true });
      if (scrollHeight - scrollTop - clientHeight < NEAR_END_PX) this.#scrollToEnd();
    });
  }
}
