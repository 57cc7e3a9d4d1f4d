import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createClient } from "@redis/client";
import { redis } from "../dist/index.js";
import { contract } from "./contract.mjs";
import { event, record } from "./samples.mjs";
import { redisServer } from "./services.mjs";

const server = await redisServer();
after(() => server.stop());
const { url } = server;

async function command(...words) {
  const client = createClient({ url });
  await client.connect();
  try {
    return await client.sendCommand(words);
  } finally {
    await client.close();
  }
}

contract("redis", {
  open: (options) => redis({ url, ...options }),
  reset: () => command("FLUSHALL"),
  reopen: () => server.restart(),
});

test("prefixes keep apart what is behind them", async () => {
  const [one, two] = await Promise.all(["one:", "two:"].map((prefix) => redis({ url, prefix })));
  await one.updateSession(record({ id: "s" }));
  await one.insertEvent("s", event("s", 1));
  assert.equal(await two.getSession("s"), undefined);
  assert.deepEqual(await two.listEvents({ sessionId: "s" }), { items: [] });
  for (const driver of [one, two]) await driver.close();
  await assert.rejects(redis({ url, prefix: "a{b}" }), { name: "InvalidInputError" });
});

test("a client that is connected already stays so", async () => {
  const client = createClient({ url });
  await client.connect();
  const driver = await redis({ client });
  await driver.updateSession(record({ id: "own" }));
  await driver.close();
  assert.equal(await client.ping(), "PONG");
  await client.close();
});

test("reading leaves no trace", async () => {
  const driver = await redis({ url, prefix: "trace:" });
  for (let i = 1; i <= 3; i += 1) await driver.insertEvent("s", event("s", 10 * i));
  const { items } = await driver.listEvents({ sessionId: "s", cursor: "k1:15:gone" });
  assert.deepEqual(items.map((item) => item.eventIndex), [20, 30]);
  assert.equal(await command("ZCARD", "trace:events:{s}:order"), 3);
  await driver.close();
});

test("neither address nor client", async () => {
  await assert.rejects(redis({}), { name: "InvalidInputError" });
});
