// A small part of Markdown as DOM nodes: paragraphs, headings, lists, quotes, code, emphasis, links. Nothing in
// the text can become markup: what is not in this set stays text, HTML too. Links go to http, https and mailto.
// Patterns are bounded, so that hostile text takes time in proportion to its length.

import { copyButton, h } from "./dom.js";

const MAX_DEPTH = 6; // of quotes, lists and emphasis within each other
const FENCE = /^ {0,3}(```+|~~~+)[ \t]*([\w+#.-]{0,30})/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*?)[ \t#]*$/;
const RULE = /^ {0,3}([-*_])([ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])[ \t]+/;
const INLINE = new RegExp(
  [
    /\\(?<escaped>[\\`*_[\]()#+\-.!~<>{}|])/,
    /(?<ticks>`{1,3})(?<code>[^`\n]{1,500})\k<ticks>/,
    /\*\*(?<strong>[^\s*][^\n]{0,500}?)\*\*/,
    /(?<![\w*])\*(?<em>[^\s*][^*\n]{0,500})\*/,
    /(?<!\w)_(?<em2>[^\s_][^_\n]{0,500})_(?!\w)/,
    /~~(?<del>[^~\n]{1,500})~~/,
    /\[(?<label>[^\]\n]{1,300})\]\((?<href>[^\s()]{1,1000})\)/,
    /<?(?<bare>https?:\/\/[^\s<>"'`*)\]]{1,1000})>?/,
  ]
    .map((pattern) => pattern.source)
    .join("|"),
  "g",
);

export function markdown(text) {
  return blocks(text.split("\n"), 0);
}

function blocks(lines, depth) {
  if (depth > MAX_DEPTH) return [h("p", null, lines.join("\n"))];
  const found = [];
  for (let at = 0; at < lines.length;) {
    const { node, next } =
      code(lines, at) ??
      heading(lines, at, depth) ??
      rule(lines, at) ??
      quote(lines, at, depth) ??
      list(lines, at, depth) ??
      paragraph(lines, at, depth);
    if (node) found.push(node);
    at = next;
  }
  return found;
}

function code(lines, at) {
  const fence = lines[at].match(FENCE);
  if (!fence) return null;
  let end = at + 1;
  while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end++;
  const text = lines.slice(at + 1, end).join("\n");
  const head = h(
    "div",
    { class: "row" },
    h("small", null, fence[2] || "code"),
    copyButton("Copy", () => text),
  );
  return { node: h("div", { class: "code" }, head, h("pre", { tabindex: "0" }, h("code", null, text))), next: end + 1 };
}

function heading(lines, at, depth) {
  const match = lines[at].match(HEADING);
  return match && { node: h(`h${Math.min(6, match[1].length + 3)}`, null, inline(match[2], depth)), next: at + 1 };
}

function rule(lines, at) {
  return RULE.test(lines[at]) ? { node: h("hr"), next: at + 1 } : null;
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end++;
  if (end === at) return null;
  const within = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return { node: h("blockquote", null, blocks(within, depth + 1)), next: end };
}

// Items of one kind; what is indented below an item belongs to it.
function list(lines, at, depth) {
  const first = lines[at].match(ITEM);
  if (!first) return null;
  const isOrdered = /\d/.test(first[2]);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const item = lines[next].match(ITEM);
    if (!item || /\d/.test(item[2]) !== isOrdered || item[1].length > first[1].length + 1) break;
    const width = first[1].length + 2;
    const within = [lines[next++].slice(item[0].length)];
    while (next < lines.length && belongs(lines, next, width)) within.push(lines[next++].slice(width));
    items.push(h("li", null, tight(blocks(within, depth + 1))));
  }
  const start = isOrdered ? { start: parseInt(first[2], 10) } : null;
  return { node: h(isOrdered ? "ol" : "ul", start, items), next };
}

function belongs(lines, at, width) {
  const isIndented = (line) => line !== undefined && line.startsWith(" ".repeat(width)) && line.trim() !== "";
  return isIndented(lines[at]) || (lines[at].trim() === "" && isIndented(lines[at + 1]));
}

// An item's first paragraph without the paragraph's margins.
function tight([first, ...rest]) {
  return first?.tagName === "P" ? [...first.childNodes, ...rest] : [first, ...rest];
}

function paragraph(lines, at, depth) {
  if (lines[at].trim() === "") return { node: null, next: at + 1 };
  const begins = [FENCE, HEADING, RULE, QUOTE, ITEM];
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !begins.some((pattern) => pattern.test(lines[end]))) end++;
  const parts = lines.slice(at, end).map((line, i) => [i ? h("br") : null, inline(line, depth)]);
  return { node: h("p", null, parts), next: end };
}

function inline(text, depth) {
  if (depth > MAX_DEPTH) return [text];
  const found = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    found.push(text.slice(from, match.index), span(match, depth + 1));
    from = match.index + match[0].length;
  }
  return [...found, text.slice(from)];
}

function span({ 0: whole, groups }, depth) {
  const { escaped, code, strong, em, em2, del, label, href, bare } = groups;
  if (escaped) return escaped;
  if (code) return h("code", null, code);
  if (strong) return h("strong", null, inline(strong, depth));
  if (em ?? em2) return h("em", null, inline(em ?? em2, depth));
  if (del) return h("del", null, inline(del, depth));
  return link(label ?? bare, href ?? bare) ?? whole;
}

function link(label, href) {
  const url = parse(href);
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  return h("a", { href: url.href, title: url.href, target: "_blank", rel: "noopener noreferrer" }, label);
}

function parse(href) {
  try {
    return new URL(href);
  } catch {
    return null;
  }
}
