// What JavaScript people use, against the server at the first argument; prints a line of JSON for each way to ask.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, isStepCount, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, modelName] = process.argv.slice(2);
const Person = z.object({ name: z.string().max(20), age: z.number().int().min(0).max(150) });
const messages = [
  { role: "user", content: "Tom is 52 years old." },
  { role: "assistant", content: '{"name": "Tom", "age": 52}' },
  { role: "user", content: "Anna is 34 years old." },
];
const tell = (way, answer) => console.log(JSON.stringify({ way, answer }));

const openai = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const body = { model: modelName, messages, response_format: zodResponseFormat(Person, "person"), temperature: 0 };
const parsed = await openai.chat.completions.parse(body);
tell("openai parse", parsed.choices[0].message.parsed);
const final = await openai.chat.completions.stream(body).finalChatCompletion();
tell("openai stream", final.choices[0].message.parsed);

const model = createOpenAICompatible({ name: "local", baseURL, supportsStructuredOutputs: true })(modelName);
const settings = { model, messages, maxRetries: 0, temperature: 0 };
tell("generateObject", (await generateObject({ ...settings, schema: Person })).object);
const objects = streamObject({ ...settings, schema: Person });
for await (const _ of objects.partialObjectStream);
tell("streamObject", await objects.object);

const save = tool({ description: "Save a person", inputSchema: Person, execute: async ({ name }) => `${name} is saved` });
const forced = { ...settings, tools: { save }, toolChoice: "required", maxOutputTokens: 200 };
const called = await generateText(forced);
tell("generateText", called.toolCalls[0].input);
const calling = streamText(forced);
for await (const _ of calling.fullStream);
tell("streamText", (await calling.toolCalls)[0].input);
const loop = await generateText({
  ...forced,
  toolChoice: undefined,
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  stopWhen: isStepCount(2),
  maxOutputTokens: 40,
});
tell("two steps", loop.steps[0].toolResults[0].output);
