// Who speaks /v1/responses in JavaScript, against the server at the first argument.
import { createOpenAI } from "@ai-sdk/openai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { baseURL, messages, modelName, Person, tell, tellOfTheAiSdk } from "./asking.mjs";

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
await tellOfTheAiSdk(model);
