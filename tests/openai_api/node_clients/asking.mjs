// What all of these programs ask, and how they tell what came of it: a line of JSON for each way to ask.
import { generateObject, generateText, isStepCount, streamObject, streamText, tool } from "ai";
import { z } from "zod";

export const [baseURL, modelName] = process.argv.slice(2);
export const Person = z.object({ name: z.string().max(20), age: z.number().int().min(0).max(150) });
export const messages = [
  { role: "user", content: "Tom is 52 years old." },
  { role: "assistant", content: '{"name": "Tom", "age": 52}' },
  { role: "user", content: "Anna is 34 years old." },
];
export const tell = (way, answer) => console.log(JSON.stringify({ way, answer }));

// The AI SDK's ways to an object, and to a tool in one step and in two.
export async function tellOfTheAiSdk(model) {
  const settings = { model, messages, maxRetries: 0, temperature: 0, maxOutputTokens: 200 };
  tell("generateObject", (await generateObject({ ...settings, schema: Person })).object);
  const objects = streamObject({ ...settings, schema: Person });
  for await (const _ of objects.partialObjectStream);
  tell("streamObject", await objects.object);

  const execute = async ({ name }) => `${name} is saved`;
  const save = tool({ description: "Save a person", inputSchema: Person, execute });
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
}
