import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { sqlite } from "../dist/index.js";
import { contract } from "./contract.mjs";
import { event, everything, record } from "./samples.mjs";
import { folder } from "./services.mjs";

if (process.argv[2] === "writer") {
  // The others have the file for most of the time.
  const driver = await sqlite({ filename: process.argv[3], onConflict: "append", busyTimeoutMs: 120_000 });
  for (let i = 1; i <= 500; i += 1) await driver.insertEvent("shared", event("shared", i));
  process.exit(0);
}

if (process.argv[2] === "until killed") {
  const driver = await sqlite({ filename: process.argv[3] });
  for (let i = 1; ; i += 1) {
    await driver.insertEvent("shared", event("shared", i));
    process.send(i);
    // The message must be on its way before the next event.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const dir = folder();
after(dir.remove);
let number = 0;
const file = () => join(dir.path, `${(number += 1)}.db`);

const contractFile = file();
contract("sqlite", {
  open: (options) => sqlite({ filename: contractFile, ...options }),
  reset: () => ["", "-wal", "-shm"].forEach((end) => rmSync(contractFile + end, { force: true })),
  reopen: () => {},
});

test("processes that write one file at once lose nothing", async () => {
  const filename = file();
  await (await sqlite({ filename })).close();
  const writers = [0, 1, 2].map(() => fork(import.meta.filename, ["writer", filename]));
  const codes = await Promise.all(writers.map(async (writer) => (await once(writer, "exit"))[0]));
  assert.deepEqual(codes, [0, 0, 0]);
  const driver = await sqlite({ filename });
  const all = await everything((page) => driver.listEvents({ ...page, sessionId: "shared", limit: 500 }));
  assert.deepEqual(all.map((item) => item.eventIndex), Array.from({ length: 1500 }, (_, i) => i + 1));
  await driver.close();
});

test("a process that is killed loses nothing that it was told is stored", async () => {
  const filename = file();
  for (let round = 1; round <= 3; round += 1) {
    const name = `${filename}-${round}`;
    const writer = fork(import.meta.filename, ["until killed", name]);
    let told = 0;
    const enough = new Promise((resolve) => writer.on("message", (index) => (told = index) >= 100 * round && resolve()));
    await enough;
    writer.kill("SIGKILL");
    await once(writer, "exit");
    const driver = await sqlite({ filename: name });
    const all = await everything((page) => driver.listEvents({ ...page, sessionId: "shared", limit: 500 }));
    assert.ok(all.length >= told, `${all.length} of ${told}`);
    assert.deepEqual(all.map((item) => item.eventIndex), all.map((_, i) => i + 1));
    await driver.close();
  }
});

test("a database that is open already stays open", async () => {
  const database = new DatabaseSync(":memory:");
  const driver = await sqlite({ database });
  await driver.updateSession(record({ id: "s" }));
  await driver.close();
  assert.equal(database.prepare("SELECT count(*) AS n FROM sessions").get().n, 1);
  database.close();
});

test("what the SDK's own driver wrote is read, indexes that it gave twice are given anew", async () => {
  const filename = file();
  const old = new DatabaseSync(filename);
  old.exec(`
    CREATE TABLE sessions (id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL, last_connection_id TEXT NOT NULL,
      created_at INTEGER NOT NULL, destroyed_at INTEGER, session_init_json TEXT);
    CREATE TABLE events (id TEXT PRIMARY KEY, event_index INTEGER NOT NULL, session_id TEXT NOT NULL, created_at INTEGER NOT NULL,
      connection_id TEXT NOT NULL, sender TEXT NOT NULL, payload_json TEXT NOT NULL);
    CREATE INDEX idx_events_session_order ON events(session_id, event_index, id);
    INSERT INTO sessions VALUES ('s', 'mock', 'a', 'c', 1, NULL, '{"cwd":"/","mcpServers":[]}');
    INSERT INTO events VALUES ('x', 1, 's', 10, 'c', 'client', '{"n":1}'), ('y', 2, 's', 11, 'c', 'agent', '{"n":2}'),
      ('z', 1, 's', 12, 'c', 'client', '{"n":3}');`);
  old.close();
  const driver = await sqlite({ filename });
  assert.deepStrictEqual((await driver.getSession("s")).sessionInit, { cwd: "/", mcpServers: [] });
  const { items } = await driver.listEvents({ sessionId: "s" });
  assert.deepEqual(items.map((item) => [item.eventIndex, item.id]), [[1, "x"], [2, "z"], [3, "y"]]);
  await driver.close();
  await (await sqlite({ filename })).close();
});

test("events from before there were indexes", async () => {
  const filename = file();
  const old = new DatabaseSync(filename);
  old.exec(`
    CREATE TABLE events (id INTEGER PRIMARY KEY, session_id TEXT NOT NULL, created_at INTEGER NOT NULL, connection_id TEXT NOT NULL,
      sender TEXT NOT NULL, payload_json TEXT NOT NULL);
    INSERT INTO events VALUES (1, 's', 10, 'c', 'client', '{}'), (2, 't', 10, 'c', 'client', '{}'), (3, 's', 9, 'c', 'agent', '{}');`);
  old.close();
  const driver = await sqlite({ filename });
  const { items } = await driver.listEvents({ sessionId: "s" });
  assert.deepEqual(items.map((item) => [item.eventIndex, item.id]), [[1, "3"], [2, "1"]]);
  await driver.close();
});

test("the tables are those that the SDK's driver documents", async () => {
  const filename = file();
  await (await sqlite({ filename })).close();
  const db = new DatabaseSync(filename);
  const columns = (table) => db.prepare(`PRAGMA table_info(${table})`).all().map((column) => column.name);
  assert.deepEqual(columns("sessions"), [
    "id", "agent", "agent_session_id", "last_connection_id", "created_at", "destroyed_at", "sandbox_id", "session_init_json",
    "config_options_json", "modes_json",
  ]);
  assert.deepEqual(columns("events"), ["id", "event_index", "session_id", "created_at", "connection_id", "sender", "payload_json"]);
  db.close();
});

test("a file that is no database is an error", async () => {
  await assert.rejects(sqlite({ filename: import.meta.filename }), /not a database/);
  await assert.rejects(sqlite({ busyTimeoutMs: -1 }), { name: "InvalidInputError" });
});
