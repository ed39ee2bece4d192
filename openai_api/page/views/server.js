import { h } from "../dom.js";

export const title = "Server";

export function mount(root) {
  root.append(h("h2", null, title));
  return {};
}
