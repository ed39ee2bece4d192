import { h } from "../dom.js";

export const title = "Shapes";

export function mount(root) {
  root.append(h("h2", null, title));
  return {};
}
