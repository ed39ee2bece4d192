// The page's shell: which view is shown, the model, the theme, the API key, and what the server's state is.
//
// The files: index.html and style.css; dom.js (elements without markup), api.js (requests), storage.js (what
// this browser keeps), settings.js (the sampling settings); views/NAME.js, one for each tab.
//
// A view is a module that exports `title` and `mount(root, context)`. `mount` fills the element `root` once,
// when its tab is first opened, and returns an object that may have `show()` and `hide()`: called whenever the
// tab is opened (after `mount` too) and left. A hidden view asks nothing of the server, so a page that is not
// looked at costs it nothing; `show` and `hide` are also called when the browser's own tab is shown and hidden.
//
// The context has:
//   api            an Api: get, text, post, stream; it asks for the key and says when the server is gone
//   announce(text) says something to screen readers, politely
//   settings       the Settings that all views share
//   models()       resolves to the cards of /v1/models, asked once
//   model()        resolves to the card of the chosen model: {id, max_model_len, is_instruction_tuned, ...}
//   onModel(call)  calls `call(card)` now (when it is known) and whenever another name is chosen, or the server
//                  is back after it was gone
// Strings of the model, of the server and of people reach the page through dom.js alone: never as markup.

import { Api } from "./api.js";
import { h, replace } from "./dom.js";
import { Settings } from "./settings.js";
import { read, write } from "./storage.js";

const VIEWS = ["chat", "text", "shapes", "server", "connect"];
const THEMES = ["auto", "light", "dark"];
const STATES = {
  gone: "The server does not answer. This page goes on asking until it is back.",
  loading: "The model is loading.",
};

const $ = (id) => document.getElementById(id);
const mounted = new Map();
let current = null;

// Clearing first makes the same words twice two announcements.
function announce(text) {
  $("live").textContent = "";
  setTimeout(() => ($("live").textContent = text), 50);
}

// The server's state

function showState(state) {
  const words = STATES[state] ?? "";
  if ($("banner").textContent === words) return;
  showBanner(words);
  announce(words || "The server is back.");
  if (!words) loadModels();
}

function showBanner(words) {
  $("banner").hidden = !words;
  $("banner").textContent = words;
}

// The key

let asking = null;

function askForKey(words) {
  asking ??= dialogForKey(words).finally(() => (asking = null));
  return asking;
}

function dialogForKey(words) {
  const dialog = $("key-dialog");
  $("key-words").textContent = words;
  $("key-input").value = "";
  $("key-keep").checked = read("key", null) !== null;
  $("key-forget").hidden = !api.hasKey;
  dialog.showModal();
  return new Promise((resolve) => {
    const done = new AbortController();
    const on = (target, event, key) =>
      target.addEventListener(event, (e) => (e.preventDefault(), finish(key())), { signal: done.signal });
    function finish(key) {
      done.abort();
      dialog.close();
      resolve(key);
    }
    on($("key-form"), "submit", () => keep($("key-input").value.trim()));
    on($("key-forget"), "click", () => keep(""));
    on($("key-cancel"), "click", () => null);
    on(dialog, "cancel", () => null);
  });
}

function keep(key) {
  write("key", key && $("key-keep").checked ? key : null);
  return key;
}

const api = new Api({ askForKey, onState: showState });
api.key = read("key", null);

// The model

const listeners = [];
let models = null;

function loadModels() {
  models = api.get("/v1/models").then(({ data }) => data);
  models.then(showModels, (error) => error.status && error.code !== "not_ready" && showBanner(error.message));
  return models;
}

function showModels(cards) {
  showBanner("");
  const chosen = cards.find((card) => card.id === $("model").value) ?? cards[0];
  replace(
    $("model"),
    cards.map((card) => h("option", { value: card.id, selected: card === chosen }, card.id)),
  );
  $("model").disabled = cards.length < 2;
  listeners.forEach((call) => call(chosen));
}

async function model() {
  const cards = await models.catch(loadModels);
  return cards.find((card) => card.id === $("model").value) ?? cards[0];
}

function onModel(call) {
  listeners.push(call);
  models.then(
    async () => call(await model()),
    () => {},
  );
}

// Views

const context = { api, announce, settings: new Settings(api), models: () => models, model, onModel };

async function open() {
  const name = VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : VIEWS[0];
  if (name === current) return;
  mounted.get(current)?.view.hide?.();
  current = name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!mounted.has(name)) await mount(name);
  for (const [other, { root }] of mounted) root.hidden = other !== current;
  if (name === current) mounted.get(name).view.show?.();
}

async function mount(name) {
  const { title, mount: fill } = await import(`./views/${name}.js`);
  if (mounted.has(name)) return;
  const root = h("section", { class: `view ${name}`, "aria-label": title });
  mounted.set(name, { root, view: {} });
  $("main").append(root);
  mounted.get(name).view = fill(root, context) ?? {};
}

// The theme

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  write("theme", theme);
}

function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
}

setTheme(THEMES.find((theme) => theme === read("theme", "auto")) ?? "auto");
loadModels();
open();
$("theme").addEventListener("click", nextTheme);
$("key").addEventListener("click", async () => {
  const key = await askForKey("It is sent to this server alone.");
  if (key === null) return;
  api.key = key;
  loadModels();
});
$("model").addEventListener("change", async () => {
  const card = await model();
  listeners.forEach((call) => call(card));
});
window.addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => {
  const view = mounted.get(current)?.view;
  if (document.hidden) view?.hide?.();
  else view?.show?.();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
