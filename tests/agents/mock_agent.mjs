// Talks to the mock agent with the protocol's own client, which checks every message against the
// protocol's schema.
//
// usage: node mock_agent.mjs COMMAND ARGUMENT…      (run where `npm install` of package.json was)
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { ClientSideConnection, ndJsonStream, PROTOCOL_VERSION } from "@agentclientprotocol/sdk";
import * as schema from "@agentclientprotocol/sdk/dist/schema/zod.gen.js";

const [command, ...args] = process.argv.slice(2);
const cwd = mkdtempSync(join(tmpdir(), "mock-"));
const agent = spawn(command, [...args, "--store", join(cwd, "store")], { stdio: ["pipe", "pipe", "inherit"] });
const ended = new Promise((done) => agent.once("exit", done));

const seen = {};
const client = {
  async requestPermission({ options, toolCall }) {
    const wanted = toolCall.title === "Which?" ? "b" : "allow_once";
    const option = options.find(({ optionId }) => optionId === wanted);
    return { outcome: { outcome: "selected", optionId: option.optionId } };
  },
  async sessionUpdate({ update }) {
    (seen[update.sessionUpdate] ??= []).push(update);
  },
};
const stream = ndJsonStream(Writable.toWeb(agent.stdin), Readable.toWeb(agent.stdout));
const connection = new ClientSideConnection(() => client, stream);

/** The answer, if it is what the schema says. */
async function valid(kind, answer) {
  return schema[kind].parse(await answer);
}

const hello = await valid("zInitializeResponse", connection.initialize({ protocolVersion: PROTOCOL_VERSION, clientCapabilities: {} }));
assert.equal(hello.protocolVersion, PROTOCOL_VERSION);
await connection.authenticate({ methodId: "mock" });
const { sessionId } = await valid("zNewSessionResponse", connection.newSession({ cwd, mcpServers: [] }));

const script = [
  "think hm",
  "plan [x] read | [>] write | check",
  "tool t1 search Look",
  "tool-done t1 found",
  "tool t2 fetch Get",
  "tool-fail t2 no network",
  "usage 10 1000",
  "usage 20 1000 0.25 EUR",
  "mode plan",
  "title A title",
  "commands",
  "write notes/a.txt written",
  "ask Do it?",
  "choose Which? | a | b",
  "chunks 3 10 1",
  "line 100K",
];
const text = script.map((step) => `mock: ${step}`).join("\n");
const answer = await valid("zPromptResponse", connection.prompt({ sessionId, prompt: [{ type: "text", text }] }));
assert.equal(answer.stopReason, "end_turn");
assert.equal(readFileSync(join(cwd, "notes/a.txt"), "utf8"), "written");
const counts = Object.fromEntries(Object.entries(seen).map(([kind, all]) => [kind, all.length]));
assert.deepEqual(counts, {
  agent_thought_chunk: 1,
  plan: 1,
  tool_call: 5,
  tool_call_update: 5,
  usage_update: 2,
  current_mode_update: 1,
  session_info_update: 1,
  available_commands_update: 1,
  agent_message_chunk: 6,
});
assert.ok(seen.agent_message_chunk.some(({ content }) => content.text === "answer: b"));

await connection.setSessionMode({ sessionId, modeId: "normal" });
await connection.unstable_setSessionModel({ sessionId, modelId: "mock-fast" });
const option = { sessionId, configId: "thought_level", value: "high" };
await valid("zSetSessionConfigOptionResponse", connection.setSessionConfigOption(option));
await assert.rejects(connection.setSessionMode({ sessionId, modeId: "none" }), { code: -32602 });

const hanging = connection.prompt({ sessionId, prompt: [{ type: "text", text: "mock: hang" }] });
await connection.cancel({ sessionId });
assert.equal((await hanging).stopReason, "cancelled");

await valid("zLoadSessionResponse", connection.loadSession({ sessionId, cwd, mcpServers: [] }));
assert.equal(seen.user_message_chunk.length, 2, "both prompts are told again");
agent.stdin.end();
assert.equal(await ended, 0);
console.log("mock agent: the protocol's client understands all of it");
