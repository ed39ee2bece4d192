// Who speaks /v1/responses in JavaScript, against the server at the first argument; prints a line of JSON for each way.
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, isStepCount, streamObject, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, modelName] = process.argv.slice(2);
const Person = z.object({ name: z.string().max(20), age: z.number().int().min(0).max(150) });
const messages = [
  { role: "user", content: "Tom is 52 years old." },
  { role: "assistant", content: '{"name": "Tom", "age": 52}' },
  { role: "user", content: "Anna is 34 years old." },
];
const tell = (way, answer) => console.log(JSON.stringify({ way, answer }));

const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const body = { model: modelName, input: messages, text: { format: zodTextFormat(Person, "person") }, temperature: 0 };
tell("create", JSON.parse((await client.responses.create(body)).output_text));
tell("parse", (await client.responses.parse(body)).output_parsed);
tell("stream", (await client.responses.stream(body).finalResponse()).output_parsed);

const parameters = z.toJSONSchema(Person);
const tools = [{ type: "function", name: "save", description: "Save a person", parameters, strict: true }];
const asked = { model: modelName, tools, temperature: 0, max_output_tokens: 200 };
const first = await client.responses.create({ ...asked, input: messages, tool_choice: "required" });
const [call] = first.output;
tell("call", JSON.parse(call.arguments));
const output = [{ type: "function_call_output", call_id: call.call_id, output: "saved" }];
const last = await client.responses.create({
  ...asked,
  input: output,
  previous_response_id: first.id,
  tool_choice: "none",
});
tell("loop", last.previous_response_id === first.id && last.status !== "failed");
const items = [];
for await (const item of client.responses.inputItems.list(last.id, { order: "asc", limit: 2 })) items.push(item.type);
tell("items", items);
await client.responses.delete(first.id);
tell("deleted", await client.responses.retrieve(first.id).catch((error) => error.status));

const model = createOpenAI({ baseURL, apiKey: "unused" })(modelName);
const settings = { model, messages, maxRetries: 0, temperature: 0 };
tell("generateObject", (await generateObject({ ...settings, schema: Person })).object);
const objects = streamObject({ ...settings, schema: Person });
for await (const _ of objects.partialObjectStream);
tell("streamObject", await objects.object);

const save = tool({ description: "Save a person", inputSchema: Person, execute: async ({ name }) => `${name} is saved` });
const forced = { ...settings, tools: { save }, toolChoice: "required", maxOutputTokens: 200 };
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
tell("second step", loop.steps[1].finishReason);
