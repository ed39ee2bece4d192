// What a shape can be: how its text is read, what a request has of it, how it is checked without an answer, what
// comes back in its form, and examples to start from. Knows no elements.

// A shape's text that cannot be read, before any server sees it.
export class ShapeError extends Error {}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ShapeError(`This is no JSON: ${error.message}`);
  }
}

function listOf(text, words) {
  const value = parsed(text);
  if (!Array.isArray(value) || !value.length) throw new ShapeError(words);
  return value;
}

function lines(text) {
  const found = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!found.length) throw new ShapeError("Write one choice a line.");
  return found;
}

function regex(text) {
  const found = text.trim();
  if (!found) throw new ShapeError("Write a regular expression; the whole answer is a match of it.");
  return found;
}

const asSchema = (schema) => ({ response_format: { type: "json_schema", json_schema: { name: "shape", schema } } });

// `fields(text)` raises ShapeError. A grammar is checked by a completion of nothing, which compiles it and
// computes one token's worth; tools are only known to chat, whose least answer has one token.
export const KINDS = {
  schema: { label: "JSON schema", help: "The answer is JSON of this schema.", fields: (text) => asSchema(parsed(text)) },
  choice: { label: "Choices", help: "The answer is one of these lines.", fields: (text) => ({ structured_outputs: { choice: lines(text) } }) },
  regex: { label: "Regular expression", help: "The whole answer is a match of it.", fields: (text) => ({ structured_outputs: { regex: regex(text) } }) },
  tools: {
    label: "Tools", help: "A JSON list of tools, as OpenAI has them; the answer calls one.", isChat: true,
    fields: (text) => ({ tools: listOf(text, "Write a list of one tool or more."), tool_choice: "required" }),
  },
  decision: {
    label: "Decision", help: "A JSON list of questions about the input; nothing is generated.", isDecision: true,
    fields: (text) => ({ questions: listOf(text, "Write a list of one question or more.") }),
  },
};

export function checkOf(kind, model, fields) {
  if (KINDS[kind].isChat) return { path: "/v1/chat/completions", body: { model, messages: [{ role: "user", content: "x" }], max_tokens: 1, ...fields } };
  return { path: "/v1/completions", body: { model, prompt: "", max_tokens: 0, ...fields } };
}

// A piece of a stream's tool call, to those that are known.
export function takeCall(calls, { index, function: part }) {
  const call = (calls[index] ??= { name: "", args: "" });
  call.name += part.name ?? "";
  call.args += part.arguments ?? "";
}

// null for what is no JSON, or not yet.
export function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return null;
  }
}

const json = (value) => JSON.stringify(value, null, 2);

export const EXAMPLES = {
  "A person, as JSON": {
    kind: "schema", input: "Ada Lovelace, born in London in 1815, was a mathematician.",
    shape: json({
      type: "object",
      properties: {
        name: { type: "string", maxLength: 30 }, birth_year: { type: "integer", minimum: 1000, maximum: 2100 },
        profession: { enum: ["mathematician", "painter", "writer"] },
      },
      required: ["name", "birth_year", "profession"], additionalProperties: false,
    }),
  },
  "A list of tags, as JSON": {
    kind: "schema", input: "A recipe for a quick vegetarian pasta with tomatoes.",
    shape: json({ type: "array", items: { enum: ["quick", "vegetarian", "meat", "dessert", "pasta"] }, minItems: 1, maxItems: 3 }),
  },
  "A mood, from three": { kind: "choice", input: "What a wonderful day! How does that sound?", shape: "positive\nneutral\nnegative" },
  "A date, as a regular expression": { kind: "regex", input: "When did the first people land on the moon?", shape: "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])" },
  "The weather, as a call of a tool": {
    kind: "tools", input: "What is the weather like in Paris?",
    shape: json([{
      type: "function",
      function: {
        name: "get_weather", description: "The weather in a city now.",
        parameters: { type: "object", properties: { city: { type: "string", maxLength: 40 }, unit: { enum: ["celsius", "fahrenheit"] } }, required: ["city", "unit"] },
      },
    }]),
  },
  "Where a letter belongs, as decisions": {
    kind: "decision", input: "My parcel has not arrived, and nobody answers the phone!",
    shape: json([
      { type: "choice", name: "department", instructions: "Which department should answer?", choices: [{ value: "delivery" }, { value: "billing" }, { value: "repairs" }] },
      { type: "predicate", name: "complaint", instructions: "The writer is unhappy." },
      { type: "score", name: "urgency", instructions: "How urgent is it?", levels: [{ label: "it can wait" }, { label: "this week" }, { label: "today" }] },
    ]),
  },
};
