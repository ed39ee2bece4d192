// Anthropic's own client and the AI SDK, against the server at the first argument; prints a line of JSON for each way.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { generateObject, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, modelName] = process.argv.slice(2);
const Person = z.object({ name: z.string().max(20), age: z.number().int().min(0).max(150) });
const messages = [
  { role: "user", content: "Tom is 52 years old." },
  { role: "assistant", content: '{"name": "Tom", "age": 52}' },
  { role: "user", content: "Anna is 34 years old." },
];
const tell = (way, answer) => console.log(JSON.stringify({ way, answer }));

const client = new Anthropic({ baseURL, apiKey: "unused", maxRetries: 0 });
const schema = {
  type: "object",
  properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer", minimum: 0, maximum: 150 } },
  required: ["name", "age"],
  additionalProperties: false,
};
const body = { model: modelName, max_tokens: 100, messages, output_config: { format: { type: "json_schema", schema } } };
tell("create", JSON.parse((await client.messages.create({ ...body, temperature: 0 })).content[0].text));
const final = await client.messages.stream({ ...body, temperature: 0 }).finalMessage();
tell("stream", JSON.parse(final.content[0].text));

const model = createAnthropic({ baseURL: `${baseURL}/v1`, apiKey: "unused" })(modelName);
const settings = { model, messages, maxRetries: 0, temperature: 0, maxOutputTokens: 200 };
tell("generateObject", (await generateObject({ ...settings, schema: Person })).object);
const save = tool({ description: "Save a person", inputSchema: Person, execute: async ({ name }) => `${name} is saved` });
const forced = { ...settings, tools: { save }, toolChoice: "required" };
tell("generateText", (await generateText(forced)).toolCalls[0].input);
const calling = streamText(forced);
for await (const _ of calling.fullStream);
tell("streamText", (await calling.toolCalls)[0].input);
const loop = await generateText({
  ...forced,
  toolChoice: undefined,
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  stopWhen: isStepCount(2),
  maxOutputTokens: 60,
});
tell("two steps", loop.steps[0].toolResults[0].output);
