// From two answers of /v1/server to the figures between them. Pure; `before` is null at first.

const rate = (now, before, seconds) => (seconds > 0 ? (now - before) / seconds : null);
const share = (part, whole) => (whole > 0 ? part / whole : null);
const mean = (now, before) => share(now.sum_s - before.sum_s, now.count - before.count);

// null is a figure that nothing was measured for.
export function figures(now, before) {
  const same = before && now.uptime_s > before.uptime_s; // else it has been started anew meanwhile
  const seconds = same ? now.uptime_s - before.uptime_s : 0;
  const { totals } = now, old = same ? before.totals : totals;
  const steps = same ? rate(totals.steps, old.steps, seconds) : null;
  return {
    outputTokensPerS: same ? rate(totals.output_tokens, old.output_tokens, seconds) : null,
    running: now.running,
    waiting: now.waiting,
    kvUsage: now.kv_cache?.usage ?? null,
    prefixHits: share(totals.prefix_cache_hits - old.prefix_cache_hits, totals.prefix_cache_queries - old.prefix_cache_queries),
    firstTokenS: same ? mean(now.time_to_first_token, before.time_to_first_token) : null,
    interTokenS: same ? mean(now.inter_token_latency, before.inter_token_latency) : null,
    batchRowsPerS: same && now.batches && before.batches ? rate(now.batches.rows, before.batches.rows, seconds) : null,
    bytesPerS: steps === null || !now.model?.step_bytes ? null : steps * now.model.step_bytes,
  };
}

// By id: output tokens a second of each request since the answer before.
export function requestRates(now, before) {
  const seconds = before ? now.uptime_s - before.uptime_s : 0;
  const earlier = new Map((before?.requests ?? []).map((row) => [row.id, row.output_tokens]));
  return new Map(now.requests.map((row) =>
    [row.id, earlier.has(row.id) && seconds > 0 ? Math.max(0, row.output_tokens - earlier.get(row.id)) / seconds : null]));
}

const WINDOW_S = 30;

// Of one batch, whose rows are told once a second: many looks make a speed.
export class RowSpeed {
  #seen = [];

  add(rows, atS) {
    this.#seen.push({ rows, atS });
    while (this.#seen.length > 2 && atS - this.#seen[1].atS > WINDOW_S) this.#seen.shift();
  }

  // null until it has been looked at for a while.
  get perS() {
    const first = this.#seen[0], last = this.#seen.at(-1);
    return first && last.atS - first.atS >= 2 ? rate(last.rows, first.rows, last.atS - first.atS) : null;
  }
}

// Words

export const count = (value) => Math.round(value).toLocaleString("en");
export const percentOf = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)}%`;
export const perSecond = (value) => `${value < 10 ? value.toFixed(1) : count(value)}/s`;

export function duration(seconds) {
  if (seconds < 1) return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days) return `${days} d ${hours % 24} h`;
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

export function bytes(value) {
  if (value >= 2 ** 30) return `${(value / 2 ** 30).toFixed(1)} GiB`;
  return value >= 2 ** 20 ? `${(value / 2 ** 20).toFixed(0)} MiB` : `${Math.ceil(value / 1024)} KiB`;
}
