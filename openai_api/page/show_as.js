// A request as a program: curl, Python with OpenAI's package, JavaScript with OpenAI's package. The key is named,
// never shown. Each function takes {path, body} and returns text. Paths that these packages have no method for, as
// that of decisions, are posted to.

import { copyButton, field, h } from "./dom.js";

// What OpenAI's packages have arguments for; the other fields go into extra_body.
const OPENAI = new Set([
  "model",
  "messages",
  "prompt",
  "stream",
  "stream_options",
  "temperature",
  "top_p",
  "frequency_penalty",
  "presence_penalty",
  "seed",
  "stop",
  "max_tokens",
  "max_completion_tokens",
  "logprobs",
  "top_logprobs",
  "echo",
  "n",
  "logit_bias",
  "response_format",
  "tools",
  "tool_choice",
  "prediction",
]);

const json = (value) => JSON.stringify(value, null, 2);
const METHODS = { "/v1/chat/completions": "chat.completions", "/v1/completions": "completions" };
const belowBase = (path) => path.replace(/^\/v1/, "");

export function curlOf({ path, body }) {
  const quoted = json(body).replaceAll("'", "'\\''");
  const isStream = body.stream ? "-N " : "";
  return `curl ${isStream}${location.origin}${path} \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer $API_KEY" \\
  -d '${quoted}'
`;
}

export function pythonOf({ path, body }) {
  return `import os

from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key=os.environ.get("API_KEY", "none"))
${METHODS[path] ? pythonCall(path, body) : pythonPost(path, body)}
`;
}

function pythonPost(path, body) {
  return `answer = client.post("${belowBase(path)}", body=${python(body, 0)}, cast_to=object)
print(answer)`;
}

function pythonCall(path, body) {
  const [known, others] = split(body);
  const args = Object.entries(known).map(([name, value]) => `    ${name}=${python(value, 1)},\n`);
  if (Object.keys(others).length) args.push(`    extra_body=${python(others, 1)},\n`);
  const content = path.includes("chat") ? ['delta.content or ""', "message.content"] : ["text", "text"];
  const show = body.stream
    ? `for chunk in answer:
    for choice in chunk.choices:
        print(choice.${content[0]}, end="", flush=True)`
    : `print(answer.choices[0].${content[1]})`;
  return `answer = client.${METHODS[path]}.create(
${args.join("")})
${show}`;
}

export function javascriptOf({ path, body }) {
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${location.origin}/v1", apiKey: process.env.API_KEY ?? "none" });
${METHODS[path] ? javascriptCall(path, body) : javascriptPost(path, body)}
`;
}

function javascriptPost(path, body) {
  return `const answer = await client.post("${belowBase(path)}", { body: ${json(body)} });
console.log(JSON.stringify(answer, null, 2));`;
}

function javascriptCall(path, body) {
  const content = path.includes("chat") ? ['delta.content ?? ""', "message.content"] : ["text", "text"];
  const show = body.stream
    ? `for await (const chunk of answer) {
  for (const choice of chunk.choices) process.stdout.write(choice.${content[0]});
}`
    : `console.log(answer.choices[0].${content[1]});`;
  return `const answer = await client.${METHODS[path]}.create(${json(body)});
${show}`;
}

function split(body) {
  const known = {},
    others = {};
  for (const [name, value] of Object.entries(body)) (OPENAI.has(name) ? known : others)[name] = value;
  return [known, others];
}

// A JSON value as Python writes it; its strings and numbers are JSON's.
function python(value, depth) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const entries = Array.isArray(value)
    ? value.map((each) => python(each, depth + 1))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, depth + 1)}`);
  if (!entries.length) return open + close;
  const indent = "    ".repeat(depth);
  return `${open}\n${entries.map((each) => `${indent}    ${each},\n`).join("")}${indent}${close}`;
}

// Opens a dialog with the request as a program in each language.
export function showAs(request) {
  const texts = { curl: curlOf(request), Python: pythonOf(request), JavaScript: javascriptOf(request) };
  const shown = h("pre", { tabindex: "0", "aria-label": "The program" });
  const choose = h(
    "select",
    { onchange: show },
    Object.keys(texts).map((name) => h("option", null, name)),
  );
  const dialog = h(
    "dialog",
    { class: "wide", "aria-label": "The same request as a program", onclose: () => dialog.remove() },
    h(
      "div",
      { class: "row" },
      field("The same request in", choose),
      copyButton("Copy", () => texts[choose.value]),
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ),
    shown,
  );
  function show() {
    shown.textContent = texts[choose.value];
  }
  show();
  document.body.append(dialog);
  dialog.showModal();
}
