// Anthropic's own client and the AI SDK's, against the server at the first argument.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { baseURL, messages, modelName, tell, tellOfTheAiSdk } from "./asking.mjs";

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
await tellOfTheAiSdk(model);
