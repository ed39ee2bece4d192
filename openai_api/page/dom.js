// Elements without markup: every string becomes a text node or an attribute's value, never HTML.

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "open", "indeterminate"]);

// h("button", {class: "primary", onclick: send}, "Send") - children may be nodes, strings, numbers, lists of
// them, or null and false, which are left out. Of attributes, null and false are left out and true is "".
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  set(element, attributes ?? {});
  element.append(...nodes(children));
  return element;
}

export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else if (/^on|^style$|^srcdoc$/i.test(name)) throw new Error(`${name} may not be text`);
    else if (name.startsWith("aria-") && value === true) element.setAttribute(name, "true");
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

export function button(words, onclick, attributes = {}) {
  return h("button", { type: "button", onclick, ...attributes }, words);
}

let lastId = 0;

// A label and its control, tied together for screen readers; help is a sentence below.
export function field(label, control, help) {
  control.id ||= `f${++lastId}`;
  const note = help ? h("small", { id: `${control.id}-help` }, help) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, note);
}

// Words below a control that is wrong, which screen readers tell with it; show("") takes them away. The control is
// in its field already.
export function fault(control) {
  const element = h("p", { class: "error", role: "status", id: `${control.id}-error` });
  control.setAttribute("aria-describedby", `${control.getAttribute("aria-describedby") ?? ""} ${element.id}`.trim());
  function show(words) {
    set(control, { "aria-invalid": words !== "" });
    if (element.textContent !== words) element.textContent = words;
  }
  return { element, show };
}

// Copies text and says so on the button, in place of its words, for a moment.
export function copyButton(words, text) {
  const element = button(words, copy);
  async function copy() {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      said = "Not allowed";
    }
    element.textContent = said;
    setTimeout(() => (element.textContent = words), 1200);
  }
  return element;
}

// Gives the browser a file to save.
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
