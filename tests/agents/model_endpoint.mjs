// A model that is a script: the chat-completions API with streaming, on loopback, no network, no key.
//
// What it answers depends on the conversation alone. Lines of the last user message that begin with
// `do:` are tool calls, one per answer:
//
//   do: read PATH
//   do: write PATH TEXT
//   do: edit PATH OLD NEW
//   do: run COMMAND
//
// (TEXT, OLD, NEW and COMMAND as JSON strings when they have blanks.) After the last tool call, and
// for every other message, the answer is text. `GET /requests` tells what was asked.
//
// usage: node model_endpoint.mjs [PORT]      prints `listening on http://127.0.0.1:PORT/v1`
import http from "node:http";

const BODY_MAX = 32 << 20;
const LOGGED_MAX = 1000;
// Names of tools and of their parameters differ between agents; the schema sent along decides.
const TOOLS = {
  read: { names: ["read"], path: true, rest: [] },
  write: { names: ["write"], path: true, rest: [["content"]] },
  edit: { names: ["edit"], path: true, rest: [["oldString", "old_string"], ["newString", "new_string"]] },
  run: { names: ["bash", "shell"], path: false, rest: [["command"]] },
};
const PATHS = ["filePath", "file_path", "path"];

const requests = [];

const server = http.createServer(async (request, response) => {
  try {
    if (request.method === "GET" && request.url === "/requests") {
      return json(response, 200, requests);
    }
    if (request.method === "GET" && request.url === "/v1/models") {
      return json(response, 200, { object: "list", data: [{ id: "scripted", object: "model" }] });
    }
    if (request.method !== "POST" || request.url !== "/v1/chat/completions") {
      return json(response, 404, { error: { message: `no ${request.method} ${request.url}` } });
    }
    const body = JSON.parse(await read(request));
    const answer = decide(body);
    if (requests.length < LOGGED_MAX) {
      requests.push({
        messages: body.messages.length,
        tools: (body.tools ?? []).map((tool) => tool.function.name),
        answer: answer.tool ? answer.tool.name : "text",
      });
    }
    body.stream ? stream(response, body, answer) : whole(response, body, answer);
  } catch (error) {
    json(response, 400, { error: { message: String(error) } });
  }
});

/** What to answer: `{ text }`, or `{ text, tool: { id, name, arguments } }`. */
function decide(body) {
  const last = body.messages.findLastIndex((message) => message.role === "user");
  const asked = last < 0 ? "" : textOf(body.messages[last]);
  const done = body.messages.slice(last + 1).filter((message) => message.role === "tool").length;
  const offered = body.tools ?? [];
  // Without tools it is a request beside the conversation, for a title for one.
  const steps = offered.length === 0 ? [] : asked.split("\n").filter((line) => line.startsWith("do:"));
  if (done < steps.length) {
    return call(steps[done].slice(3).trim(), offered, `call_${last}_${done}`);
  }
  if (steps.length > 0) {
    return { text: `scripted: ${steps.length} steps done` };
  }
  const users = body.messages.filter((message) => message.role === "user");
  if (/what did I say before\?/i.test(asked)) {
    const before = users.length > 1 ? textOf(users.at(-2)) : "nothing";
    return { text: `scripted: ${users.length - 1} messages before; the last was: ${before}` };
  }
  return { text: `scripted: ${asked.slice(0, 200)}` };
}

function call(step, offered, id) {
  const [word, ...values] = words(step);
  const tool = TOOLS[word];
  const found = offered.find((offer) => tool?.names.includes(offer.function.name.toLowerCase()));
  if (!found) {
    return { text: `scripted: there is no tool for ${word}` };
  }
  const known = found.function.parameters.properties;
  const named = tool.path ? [PATHS, ...tool.rest] : tool.rest;
  const given = {};
  named.forEach((names, index) => {
    given[names.find((name) => name in known) ?? names[0]] = values[index] ?? "";
  });
  for (const name of found.function.parameters.required ?? []) {
    given[name] ??= "scripted";
  }
  return { text: `I will ${word}.`, tool: { id, name: found.function.name, arguments: JSON.stringify(given) } };
}

/** Words, or JSON strings, with blanks between. */
function words(text) {
  return (text.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? []).map((word) => (word.startsWith('"') ? JSON.parse(word) : word));
}

function textOf(message) {
  if (typeof message.content === "string") {
    return message.content;
  }
  return (message.content ?? []).map((part) => part.text ?? "").join("\n");
}

function stream(response, body, answer) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const send = (delta, finish) =>
    response.write(`data: ${JSON.stringify(chunk(body, { index: 0, delta, finish_reason: finish ?? null }))}\n\n`);
  send({ role: "assistant", content: "" });
  for (const piece of answer.text.match(/\S+\s*/g) ?? []) {
    send({ content: piece });
  }
  if (answer.tool) {
    const { id, name, arguments: given } = answer.tool;
    send({ tool_calls: [{ index: 0, id, type: "function", function: { name, arguments: "" } }] });
    const half = Math.ceil(given.length / 2);
    for (const piece of [given.slice(0, half), given.slice(half)]) {
      send({ tool_calls: [{ index: 0, function: { arguments: piece } }] });
    }
  }
  send({}, answer.tool ? "tool_calls" : "stop");
  const usage = { ...chunk(body), choices: [], usage: usageOf(body, answer) };
  response.write(`data: ${JSON.stringify(usage)}\n\n`);
  response.end("data: [DONE]\n\n");
}

function whole(response, body, answer) {
  const calls = answer.tool
    ? [{ id: answer.tool.id, type: "function", function: { name: answer.tool.name, arguments: answer.tool.arguments } }]
    : undefined;
  const message = { role: "assistant", content: answer.text, tool_calls: calls };
  json(response, 200, {
    ...chunk(body),
    object: "chat.completion",
    choices: [{ index: 0, message, finish_reason: calls ? "tool_calls" : "stop" }],
    usage: usageOf(body, answer),
  });
}

function chunk(body, choice) {
  return {
    id: "scripted-1",
    object: "chat.completion.chunk",
    created: 1_700_000_000,
    model: body.model,
    choices: choice ? [choice] : [],
  };
}

/** The same for the same conversation. */
function usageOf(body, answer) {
  const prompt = 100 * body.messages.length;
  const completion = answer.tool ? 20 : 10;
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
}

async function read(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > BODY_MAX) {
      throw new Error("the body is too large");
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function json(response, status, value) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}/v1`);
});
