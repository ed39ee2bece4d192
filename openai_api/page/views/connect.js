// How programs call this server: with its real address and model.

import { copyButton, h, replace } from "../dom.js";
import { curlOf, javascriptOf, pythonOf } from "../show_as.js";

export const title = "Connect";

const LINKS = {
  "/v1/models": "names the model",
  "/v1/capabilities": "every request field, and what is done with it",
  "/openapi.json": "describes all of it",
  "/metrics": "figures for Prometheus",
};

export function mount(root, { onModel }) {
  const programs = h("div");
  root.append(
    h("h2", null, "Call this server"),
    h(
      "p",
      null,
      "It speaks OpenAI's API. Give any OpenAI client ",
      h("code", null, `${location.origin}/v1`),
      " as its base URL, and any text as its key if the server asks for none.",
    ),
    programs,
    h("h2", null, "What it says of itself"),
    h(
      "ul",
      null,
      Object.entries(LINKS).map(([path, does]) =>
        h("li", null, h("a", { href: path }, h("code", null, path)), `: ${does}`),
      ),
    ),
  );
  onModel((card) => replace(programs, programsFor(card)));
  return {};
}

function programsFor({ id, is_instruction_tuned: isTuned }) {
  const request = isTuned
    ? { path: "/v1/chat/completions", body: { model: id, messages: [{ role: "user", content: "Hello" }] } }
    : { path: "/v1/completions", body: { model: id, prompt: "The capital of France is", max_tokens: 16 } };
  return Object.entries({ curl: curlOf, Python: pythonOf, JavaScript: javascriptOf }).map(([name, write]) => {
    const text = write(request);
    return [
      h(
        "div",
        { class: "row" },
        h("h3", null, name),
        copyButton("Copy", () => text),
      ),
      h("pre", { tabindex: "0", "aria-label": `The request in ${name}` }, text),
    ];
  });
}
