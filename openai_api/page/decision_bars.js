// The answers of /v1/decisions as bars, one for each option with its probability.

import { h } from "./dom.js";

const percentOf = (value) => `${(100 * value).toFixed(1)}%`;

export function decisionBars({ answers }) {
  return answers.map((answer, at) => h("section", { class: "decision" },
    h("h3", null, answer.name ?? `Question ${at + 1}`),
    h("ul", { class: "bars" }, optionsOf(answer).map(({ label, probability }) => h("li", null,
      h("span", null, label), h("meter", { value: probability, min: 0, max: 1, "aria-label": label }), h("span", null, percentOf(probability))))),
    answer.type === "score" && h("p", { class: "soft" }, `The mean of the levels, counted from 0: ${answer.score.toFixed(2)}`)));
}

function optionsOf({ type, probability, probabilities }) {
  if (type === "predicate") return [{ label: "yes", probability }, { label: "no", probability: 1 - probability }];
  return probabilities.map((each) => ({ label: each.label ?? String(each.value), probability: each.probability }));
}
