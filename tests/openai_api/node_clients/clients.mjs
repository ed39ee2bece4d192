// Who speaks chat completions in JavaScript, against the server at the first argument.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { baseURL, messages, modelName, Person, tell, tellOfTheAiSdk } from "./asking.mjs";

const openai = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const body = { model: modelName, messages, response_format: zodResponseFormat(Person, "person"), temperature: 0 };
const parsed = await openai.chat.completions.parse(body);
tell("openai parse", parsed.choices[0].message.parsed);
const final = await openai.chat.completions.stream(body).finalChatCompletion();
tell("openai stream", final.choices[0].message.parsed);

const model = createOpenAICompatible({ name: "local", baseURL, supportsStructuredOutputs: true })(modelName);
await tellOfTheAiSdk(model);
