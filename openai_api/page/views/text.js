import { h } from "../dom.js";

export const title = "Text";

export function mount(root) {
  root.append(h("h2", null, title));
  return {};
}
