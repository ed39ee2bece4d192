// Counts of an answer in words, from its `usage` and the times at which its events came.

// Notes when tokens come: `took(event)` for each event of a stream.
export class Figures {
  #began = performance.now();
  #first = null;
  #last = null;
  #usage = null;

  took(event) {
    this.#usage = event.usage ?? this.#usage;
    if (!event.choices?.some(hasText)) return;
    this.#last = performance.now();
    this.#first ??= this.#last;
  }

  get usage() {
    return this.#usage;
  }

  // "12 tokens, 130 tokens/s, the first after 31 ms, 20 of 24 prompt tokens from the cache"
  toString() {
    const { prompt_tokens: prompt, completion_tokens: tokens, prompt_tokens_details: details } = this.#usage ?? {};
    if (tokens === undefined || this.#first === null) return "";
    const seconds = (this.#last - this.#first) / 1000;
    const rate = tokens > 1 && seconds > 0 ? `, ${Math.round((tokens - 1) / seconds)} tokens/s` : "";
    const first = `, the first after ${Math.round(this.#first - this.#began)} ms`;
    const cached = details ? `, ${details.cached_tokens} of ${prompt} prompt tokens from the cache` : "";
    return `${tokens} token${tokens === 1 ? "" : "s"}${rate}${first}${cached}`;
  }
}

function hasText({ text, delta }) {
  return Boolean(text || delta?.content);
}

// The same with the end, the drafts and whatever else `usage` counts.
export function usageWords(figures, { ended, numDrafts }) {
  const known = ["cached_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"];
  const details = Object.values(figures.usage ?? {}).filter((value) => typeof value === "object" && value !== null);
  const others = details.flatMap(Object.entries).filter(([name, count]) => !known.includes(name) && count > 0);
  const parts = [
    `${figures}`,
    numDrafts > 0 && `${numDrafts} tokens came as drafts`,
    ...others.map(([name, count]) => `${count} ${name.replaceAll("_", " ")}`),
    ended && `ended with ${ended}`,
  ];
  return parts.filter(Boolean).join(", ");
}
