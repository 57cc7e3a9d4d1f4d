import assert from "node:assert/strict";
import { after, test } from "node:test";
import pg from "pg";
import { postgres } from "../dist/index.js";
import { contract } from "./contract.mjs";
import { event, record } from "./samples.mjs";
import { postgresServer } from "./services.mjs";

const server = await postgresServer();
after(() => server.stop());
const connectionString = server.url;

async function query(sql) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

contract("postgres", {
  open: (options) => postgres({ connectionString, schema: "contract", ...options }),
  reset: () => query("DROP SCHEMA IF EXISTS contract CASCADE"),
  reopen: () => {},
});

test("a schema must have a name that is one", async () => {
  for (const schema of ["", "1a", "a-b", 'a"b', "a b", "ü", "a;drop"]) {
    await assert.rejects(postgres({ connectionString, schema }), { name: "InvalidInputError" });
  }
  await (await postgres({ connectionString, schema: "_Mixed1" })).close();
  assert.equal((await query(`SELECT * FROM "_Mixed1".sessions`)).length, 0);
});

test("schemas keep apart what is in them", async () => {
  const [one, two] = await Promise.all(["one", "two"].map((schema) => postgres({ connectionString, schema })));
  await one.updateSession(record({ id: "s" }));
  assert.equal(await two.getSession("s"), undefined);
  await one.close();
  await two.close();
});

test("many drivers may start at once", async () => {
  const drivers = await Promise.all(Array.from({ length: 8 }, () => postgres({ connectionString, schema: "rush", poolConfig: { max: 2 } })));
  for (const driver of drivers) await driver.close();
});

test("a pool that is there already stays open", async () => {
  const pool = new pg.Pool({ connectionString });
  const driver = await postgres({ pool });
  await driver.updateSession(record({ id: "pooled" }));
  await driver.close();
  assert.equal((await pool.query("SELECT id FROM public.sessions WHERE id = 'pooled'")).rowCount, 1);
  await pool.end();
});

test("what the SDK's own driver wrote is read, indexes that it gave twice are given anew", async () => {
  await query(`CREATE SCHEMA old;
    CREATE TABLE old.sessions (id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL, last_connection_id TEXT NOT NULL,
      created_at BIGINT NOT NULL, destroyed_at BIGINT, session_init_json JSONB);
    CREATE TABLE old.events (id TEXT PRIMARY KEY, event_index BIGINT NOT NULL, session_id TEXT NOT NULL, created_at BIGINT NOT NULL,
      connection_id TEXT NOT NULL, sender TEXT NOT NULL, payload_json JSONB NOT NULL);
    INSERT INTO old.sessions VALUES ('s', 'mock', 'a', 'c', 1, NULL, '{"cwd":"/","mcpServers":[]}');
    INSERT INTO old.events VALUES ('x', 1, 's', 10, 'c', 'client', '{}'), ('y', 2, 's', 11, 'c', 'agent', '{}'), ('z', 1, 's', 12, 'c', 'client', '{}');`);
  const driver = await postgres({ connectionString, schema: "old" });
  assert.deepStrictEqual((await driver.getSession("s")).sessionInit, { cwd: "/", mcpServers: [] });
  const { items } = await driver.listEvents({ sessionId: "s" });
  assert.deepEqual(items.map((item) => [item.eventIndex, item.id]), [[1, "x"], [2, "z"], [3, "y"]]);
  await driver.insertEvent("s", event("s", 4));
  await driver.close();
});

test("a server that is not there is an error", async () => {
  await assert.rejects(postgres({ connectionString: "postgres://127.0.0.1:1/x" }), /ECONNREFUSED/);
});
