// The conversations that this browser keeps, the latest first, and their export. A conversation is {id, title,
// system, messages}; a message is {role, content} and of an answer also {error, isStopped, figures}.

import { read, write } from "./storage.js";

const MAX_KEPT = 50;
const MAX_TITLE_CHARS = 60;

export class Conversations {
  #all = [read("conversations", [])].flat().filter(isConversation);

  get all() {
    return this.#all;
  }

  create() {
    return {
      id: `${Date.now()}-${Math.random().toString(36).slice(2, 8)}`,
      title: "New chat",
      system: "",
      messages: [],
    };
  }

  // Puts it first. Where there is no room for all, the oldest are forgotten.
  save(conversation) {
    const first = conversation.messages.find(({ role }) => role === "user");
    if (first) conversation.title = first.content.trim().slice(0, MAX_TITLE_CHARS) || "New chat";
    this.#all = [conversation, ...this.#all.filter(({ id }) => id !== conversation.id)].slice(0, MAX_KEPT);
    let kept = this.#all;
    while (!write("conversations", kept) && kept.length) kept = kept.slice(0, -1);
  }

  remove(conversation) {
    this.#all = this.#all.filter(({ id }) => id !== conversation.id);
    write("conversations", this.#all);
  }
}

// Of a browser's storage anything can be expected.
function isConversation(value) {
  return (
    typeof value?.id === "string" &&
    typeof value.title === "string" &&
    typeof value.system === "string" &&
    Array.isArray(value.messages) &&
    value.messages.every((message) => typeof message?.role === "string" && typeof message.content === "string")
  );
}

// The messages of a request: what is empty or only an error is left out.
export function messagesOf({ system, messages }) {
  const said = messages.filter(({ content }) => content !== "").map(({ role, content }) => ({ role, content }));
  return system.trim() ? [{ role: "system", content: system }, ...said] : said;
}

export function asJson(conversation) {
  return JSON.stringify({ title: conversation.title, messages: messagesOf(conversation) }, null, 2);
}

export function asMarkdown(conversation) {
  const parts = messagesOf(conversation).map(({ role, content }) => `## ${role}\n\n${content}\n`);
  return [`# ${conversation.title.replace(/\s+/g, " ")}\n`, ...parts].join("\n");
}
