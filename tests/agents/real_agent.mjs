// Drives OpenCode over the Agent Client Protocol inside one machine, with the scripted model on its
// loopback: no network, no key, nothing but this directory's files and OpenCode's program.
//
// usage: node real_agent.mjs OPENCODE
//    or: BUN_BE_BUN=1 OPENCODE real_agent.mjs OPENCODE     (OpenCode's program is a runtime too)
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const opencode = resolve(process.argv[2] ?? "opencode");
const project = mkdtempSync(join(tmpdir(), "project-"));

const model = spawn(process.execPath, [join(here, "model_endpoint.mjs")], { stdio: ["ignore", "pipe", "inherit"] });
const url = await new Promise((found, failed) => {
  model.once("exit", (code) => failed(new Error(`the model ended with ${code}`)));
  createInterface({ input: model.stdout }).once("line", (line) => found(line.replace("listening on ", "")));
});

const { BUN_BE_BUN: _, ...environment } = process.env;
const agent = spawn(opencode, ["acp"], {
  cwd: project,
  stdio: ["pipe", "pipe", "pipe"],
  env: {
    ...environment,
    OPENCODE_CONFIG: join(here, "opencode.json"),
    SCRIPTED_MODEL_URL: url,
    OPENCODE_DISABLE_AUTOUPDATE: "1",
    OPENCODE_DISABLE_MODELS_FETCH: "1",
    OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
    OPENCODE_DISABLE_DEFAULT_PLUGINS: "1",
  },
});

// It complains at length about what a client does not do; shown if it dies.
let complaints = "";
agent.stderr.on("data", (data) => {
  complaints = (complaints + data).slice(-4096);
});

const waiting = new Map();
const updates = [];
let permissions = 0;
const send = (message) => agent.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
createInterface({ input: agent.stdout }).on("line", (line) => {
  const message = JSON.parse(line);
  if (message.method === "session/request_permission") {
    permissions += 1;
    const { optionId } = message.params.options.find((option) => option.kind === "allow_once");
    send({ id: message.id, result: { outcome: { outcome: "selected", optionId } } });
  } else if (message.method === "session/update") {
    updates.push(message.params.update);
  } else if (message.method !== undefined) {
    // Ids are each side's own: a request with the id of one of ours is no answer to it.
    send({ id: message.id, error: { code: -32601, message: `no ${message.method} here` } });
  } else {
    waiting.get(message.id)?.(message);
  }
});
const ended = new Promise((done) => agent.once("exit", (code) => done(code)));

async function call(method, params) {
  const id = waiting.size + 1;
  const answer = new Promise((done) => waiting.set(id, done));
  send({ id, method, params });
  const died = ended.then((code) => assert.fail(`the agent ended with ${code} during ${method}: ${complaints}`));
  const message = await Promise.race([answer, died]);
  assert.ok(message.result, JSON.stringify(message));
  return message.result;
}

await call("initialize", { protocolVersion: 1, clientCapabilities: {} });
const { sessionId } = await call("session/new", { cwd: project, mcpServers: [] });
writeFileSync(join(project, "old.txt"), "an old text\n");
const text = ['do: write new.txt "from the model\\n"', "do: read old.txt", "do: edit old.txt old new", 'do: run "cat *.txt > all"'];
const { stopReason, usage } = await call("session/prompt", {
  sessionId,
  prompt: [{ type: "text", text: text.join("\n") }],
});

assert.equal(stopReason, "end_turn");
assert.ok(usage.totalTokens > 0);
assert.ok(existsSync(join(project, "all")), JSON.stringify(updates));
assert.equal(readFileSync(join(project, "all"), "utf8"), "from the model\nan new text\n");
// The answer may overtake the last updates.
const completed = () => updates.filter((update) => update.status === "completed").length;
const paid = () => updates.some((update) => update.sessionUpdate === "usage_update" && update.cost.amount > 0);
for (const end = Date.now() + 30_000; Date.now() < end && !(completed() >= 4 && paid()); ) {
  await new Promise((done) => setTimeout(done, 20));
}
assert.equal(completed(), 4);
assert.equal(permissions, 2, "each edit is asked for");
assert.ok(paid());

agent.stdin.end();
assert.equal(await ended, 0);
model.kill();
console.log("real agent: 4 tool calls done");
