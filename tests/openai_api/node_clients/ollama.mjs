// ollama-js, unmodified: node ollama.mjs URL MODEL. A line of JSON for each way, with what came of it.
import { Ollama } from "ollama";

const [url, model] = process.argv.slice(2);
const ollama = new Ollama({ host: url });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const options = { temperature: 0, num_predict: 12 };
const format = {
  type: "object",
  properties: { name: { enum: ["Paris", "Rome"] } },
  required: ["name"],
};
const tools = [
  {
    type: "function",
    function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
  },
];

const tell = (way, answer) => console.log(JSON.stringify({ way, answer }));

async function streamed(parts, textOf) {
  let text = "";
  let last;
  for await (const part of parts) {
    text += textOf(part);
    last = part;
  }
  return { text, done: last.done, hasCounts: last.eval_count > 0 && last.eval_duration > 0 };
}

async function refused(call) {
  try {
    await call();
    return "was not refused";
  } catch (error) {
    return { status: error.status_code, message: error.message };
  }
}

tell("chat", (await ollama.chat({ model, messages, options })).message.content);
tell("chat stream", await streamed(await ollama.chat({ model, messages, options, stream: true }), (part) => part.message.content));
const prompt = "The capital of France is";
tell("generate", (await ollama.generate({ model, prompt, raw: true, options })).response);
tell("generate stream", await streamed(await ollama.generate({ model, prompt, raw: true, options, stream: true }), (part) => part.response));
tell("format", JSON.parse((await ollama.chat({ model, messages, options: { ...options, num_predict: 60 }, format })).message.content));
tell("tools", typeof (await ollama.chat({ model, messages, options, tools })).message.content);
tell("list", (await ollama.list()).models.map((each) => each.model));
tell("ps", (await ollama.ps()).models.map((each) => each.model));
tell("show", (await ollama.show({ model })).capabilities);
tell("version", (await ollama.version()).version);
tell("pull", (await ollama.pull({ model })).status);
tell("unknown model", await refused(() => ollama.chat({ model: "llama3.2", messages })));
tell("embed", await refused(() => ollama.embed({ model, input: "x" })));
