// What token ids are as text, asked of the server many at a time and kept.

// Characters that nobody sees, as pictures of them.
const UNSEEN = /[\0-\x08\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export class TokenTexts {
  #texts = new Map();
  #specials = new Set();
  #separator = null;

  constructor(api) {
    this.api = api;
  }

  // The text of a token that is loaded, exactly.
  of(id) {
    return this.#texts.get(id) ?? `#${id}`;
  }

  // Whether it is a control token, as <bos> or <end_of_turn>, and not a word that looks like one.
  isSpecial(id) {
    return this.#specials.has(id);
  }

  // The same for people: what is not seen else has a sign.
  shown(id) {
    const text = this.of(id).replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5").replace(UNSEEN, picture);
    return text.trim() === "" ? text.replaceAll(" ", "\u2423") : text;
  }

  // Loads those of `ids` that are not known. One request for all: a token that is never within a text stands
  // between any two of them.
  async load(ids) {
    const unknown = [...new Set(ids)].filter((id) => !this.#texts.has(id));
    if (!unknown.length) return;
    const { id: separator, text } = (this.#separator ??= await this.#findSeparator());
    const tokens = unknown.filter((id) => id !== separator).flatMap((id) => [separator, id]);
    const { prompt } = await this.api.post("/detokenize", { tokens });
    const parts = prompt.split(text).slice(1);
    for (let at = 0; at < parts.length; at++) this.#texts.set(tokens[2 * at + 1], parts[at]);
    await Promise.all(unknown.map((id) => this.#classify(id)));
  }

  async #findSeparator() {
    const { tokens } = await this.api.post("/tokenize", { prompt: "" });
    const { prompt: text } = await this.api.post("/detokenize", { tokens: tokens.slice(0, 1) });
    this.#texts.set(tokens[0], text);
    this.#specials.add(tokens[0]);
    return { id: tokens[0], text };
  }

  // A control token is not what its name as an ordinary text becomes.
  async #classify(id) {
    const text = this.of(id);
    if (!/^[<[].+[>\]]$/.test(text)) return;
    const { tokens } = await this.api.post("/tokenize", {
      prompt: text,
      add_special_tokens: false,
      parse_special: false,
    });
    if (tokens.length !== 1 || tokens[0] !== id) this.#specials.add(id);
  }
}

function picture(character) {
  const code = character.charCodeAt(0);
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : `\\u${code.toString(16).padStart(4, "0")}`;
}
