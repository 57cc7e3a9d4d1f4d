// With WOODFROG_URL and WOODFROG_API_KEY against that server, whose workspace is emptied; else
// against a stand-in.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { woodfrog } from "../dist/index.js";
import { contract } from "./contract.mjs";
import { event, everything, record } from "./samples.mjs";
import { standIn } from "./standin.mjs";

const { WOODFROG_URL, WOODFROG_API_KEY } = process.env;
const real = WOODFROG_URL ? { baseUrl: WOODFROG_URL, apiKey: WOODFROG_API_KEY ?? "", stop() {} } : undefined;
const server = real ?? (await standIn());
after(() => server.stop());
const { baseUrl, apiKey } = server;
const open = (options) => woodfrog({ baseUrl, apiKey, ...options });

contract(`woodfrog, ${real ? baseUrl : "stand-in"}`, {
  open,
  async reset() {
    const driver = open();
    for (const { id } of await everything((page) => driver.listSessions({ ...page, limit: 1000 }))) await driver.deleteSession(id);
  },
  reopen: () => {},
});

test("a page that is larger than the server's is made of several", async () => {
  const driver = open();
  const sessionId = `large-${crypto.randomUUID()}`;
  for (let i = 1; i <= 1100; i += 1) await driver.insertEvent(sessionId, event(sessionId, i));
  const { items, nextCursor } = await driver.listEvents({ sessionId, limit: 1050 });
  assert.equal(items.length, 1050);
  assert.deepEqual((await driver.listEvents({ sessionId, cursor: nextCursor })).items.map((item) => item.eventIndex).at(-1), 1100);
  assert.equal((await driver.listEvents({ sessionId, limit: 1100 })).nextCursor, undefined);
});

test("the routes, as they are written down", async () => {
  const call = async (method, path, body, headers = {}) => {
    const init = { method, headers: { authorization: `Bearer ${apiKey}`, ...headers } };
    if (body !== undefined) Object.assign(init, { body: JSON.stringify(body), headers: { ...init.headers, "content-type": "application/json" } });
    const response = await fetch(`${baseUrl}/api/v1/persist/sessions${path}`, init);
    const text = await response.text();
    return { status: response.status, body: text ? JSON.parse(text) : undefined };
  };
  const one = record();
  const path = `/${one.id}`;
  assert.equal((await call("GET", path)).status, 404);
  assert.deepEqual(await call("PUT", path, one), { status: 204, body: undefined });
  assert.deepEqual(await call("GET", path), { status: 200, body: one });
  const sent = event(one.id, 1);
  assert.equal((await call("POST", `${path}/events`, sent)).status, 204);
  assert.equal((await call("POST", `${path}/events`, sent)).status, 204);
  const index = await call("POST", `${path}/events`, event(one.id, 1));
  assert.deepEqual([index.status, index.body.code, index.body.errors[0].pointer], [409, "conflict", "#/eventIndex"]);
  const id = await call("POST", `${path}/events`, { ...sent, eventIndex: 2 });
  assert.deepEqual([id.status, id.body.code, id.body.errors[0].pointer], [409, "conflict", "#/id"]);
  assert.equal((await call("POST", `${path}/events`, event(one.id, 2))).status, 204);
  const last = await call("GET", `${path}/events?order=desc&limit=1`);
  assert.deepEqual(last.body.items.map((item) => item.eventIndex), [2]);
  assert.deepEqual((await call("GET", `${path}/events?limit=1`)).body, { items: [sent], nextCursor: `k1:1:${sent.id}` });
  for (const bad of [{ eventIndex: 0 }, { sender: "x" }, { payload: 1 }]) {
    const refused = await call("POST", `${path}/events`, { ...event(one.id, 9), ...bad });
    assert.deepEqual([refused.status, refused.body.code], [400, "invalid_argument"], JSON.stringify(bad));
  }
  assert.equal((await call("GET", path, undefined, { authorization: "Bearer wrong" })).status, 401);
  assert.equal((await call("DELETE", path)).status, 204);
  assert.equal((await call("DELETE", path)).status, 404);
});

test("failures have the server's words", async () => {
  const stranger = woodfrog({ baseUrl, apiKey: "wrong" });
  await assert.rejects(stranger.getSession("x"), { name: "WoodfrogError", status: 401, code: "unauthenticated" });
  const nobody = woodfrog({ baseUrl: "http://127.0.0.1:1", apiKey });
  await assert.rejects(nobody.getSession("x"), /fetch failed/);
  const html = woodfrog({ baseUrl, apiKey, fetch: async () => new Response("<html>", { status: 502 }) });
  await assert.rejects(html.listSessions(), { name: "WoodfrogError", status: 502, message: "HTTP 502" });
  const never = (_, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  await assert.rejects(woodfrog({ baseUrl, apiKey, fetch: never, timeoutMs: 50 }).getSession("x"), { name: "TimeoutError" });
  assert.throws(() => woodfrog({ baseUrl: "host", apiKey }), { name: "InvalidInputError" });
  assert.throws(() => woodfrog({ baseUrl, apiKey: "" }), { name: "InvalidInputError" });
});
