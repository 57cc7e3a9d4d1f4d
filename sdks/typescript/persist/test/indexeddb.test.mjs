// The driver runs in a real browser; the suite runs here and calls it there.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, test } from "node:test";
import puppeteer from "puppeteer-core";
import { contract } from "./contract.mjs";
import { event, record } from "./samples.mjs";
import { folder } from "./services.mjs";

const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
if (!executablePath) throw new Error("Chromium is not installed: apt-get install chromium");
const profile = folder();
const dist = join(import.meta.dirname, "../dist");

// IndexedDB belongs to an origin, so the page comes from somewhere.
const files = createServer((request, response) => {
  const module = /^\/([\w-]+\.js)$/.exec(request.url ?? "")?.[1];
  response.setHeader("content-type", module ? "text/javascript" : "text/html");
  response.end(module ? readFileSync(join(dist, module)) : "<!doctype html><title>test</title>");
});
await new Promise((resolve) => files.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${files.address().port}/`;

// Root has no sandbox of its own to give to a browser.
const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"];
const launch = () => puppeteer.launch({ executablePath, headless: true, userDataDir: profile.path, args, timeout: 120_000 });
let browser = await launch();
after(async () => {
  await browser.close();
  files.closeAllConnections();
  files.close();
  profile.remove();
});

/** `undefined` and NaN do not go through the wire by themselves. */
function encode(value) {
  if (value === undefined) return { $: "undefined" };
  if (typeof value === "number" && !Number.isFinite(value)) return { $: String(value) };
  if (Array.isArray(value)) return value.map(encode);
  if (typeof value !== "object" || value === null) return value;
  return { $: "object", entries: Object.entries(value).map(([key, one]) => [key, encode(one)]) };
}
function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (typeof value !== "object" || value === null) return value;
  if (value.$ === "undefined") return undefined;
  if (value.$ !== "object") return Number(value.$);
  return Object.fromEntries(value.entries.map(([key, one]) => [key, decode(one)]));
}

/** Calls `method` of the page's driver; an error arrives with its name and message. */
async function call(page, method, values) {
  const outcome = await page.evaluate(
    async (source, method, values) => {
      const [encode, decode] = source.map((text) => (0, eval)(text));
      try {
        return { value: encode(await globalThis.driver[method](...values.map(decode))) };
      } catch (error) {
        return { name: error.name, message: error.message };
      }
    },
    [encode, decode].map((one) => `globalThis.${one.name} = ${one}`),
    method,
    values.map(encode),
  );
  if (outcome.message === undefined) return decode(outcome.value);
  throw Object.assign(new Error(outcome.message), { name: outcome.name });
}

const METHODS = ["getSession", "listSessions", "updateSession", "listEvents", "insertEvent", "deleteSession"];

async function tab() {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(origin);
  return page;
}

/** A driver in a tab of its own. */
async function open(options) {
  const page = await tab();
  const error = await page.evaluate(async (options) => {
    const { indexeddb } = await import("/indexeddb.js");
    try {
      globalThis.driver = await indexeddb(options);
    } catch (error) {
      return { name: error.name, message: error.message };
    }
  }, options ?? {});
  if (error) throw Object.assign(new Error(error.message), { name: error.name });
  const driver = Object.fromEntries(METHODS.map((method) => [method, (...values) => call(page, method, values)]));
  return { ...driver, page, close: () => page.close() };
}

async function withPage(body) {
  const page = await tab();
  try {
    return await page.evaluate(body);
  } finally {
    await page.close();
  }
}

contract("indexeddb", {
  open,
  reset: () =>
    withPage(
      () =>
        new Promise((resolve, reject) => {
          const request = indexedDB.deleteDatabase("sandbox-agent-session-store");
          request.onsuccess = () => resolve();
          request.onerror = () => reject(request.error);
        }),
    ),
  async reopen() {
    await browser.close();
    browser = await launch();
  },
  writes: 1000,
});

test("the database is that of the SDK's inspector", async () => {
  const driver = await open();
  const one = record({ id: "known" });
  await driver.updateSession(one);
  await driver.insertEvent("known", event("known", 1));
  const found = await driver.page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const request = indexedDB.open("sandbox-agent-session-store", 2);
        request.onerror = () => reject(request.error);
        request.onsuccess = () => {
          const db = request.result;
          const events = db.transaction("events").objectStore("events");
          const index = events.index("by_session_index");
          const get = db.transaction("sessions").objectStore("sessions").get("known");
          get.onsuccess = () => {
            resolve({ stores: [...db.objectStoreNames], key: events.keyPath, path: index.keyPath, session: get.result });
            db.close();
          };
        };
      }),
  );
  assert.deepEqual(found, { stores: ["events", "sessions"], key: "id", path: ["sessionId", "eventIndex", "id"], session: one });
  await driver.close();
});

test("a tab that is killed in the middle leaves whole events only", async () => {
  const driver = await open();
  const { page } = driver;
  const writing = page.evaluate(async () => {
    for (let i = 1; i < 100_000; i += 1) {
      const payload = { jsonrpc: "2.0", method: "m", params: { i } };
      await globalThis.driver.insertEvent({ id: `e${i}`, eventIndex: i, sessionId: "cut", createdAt: 1, connectionId: "c", sender: "agent", payload });
      globalThis.stored = i;
    }
  });
  writing.catch(() => {});
  while ((await page.evaluate(() => globalThis.stored ?? 0)) < 50);
  const stored = await page.evaluate(() => globalThis.stored);
  await driver.close();
  const other = await open();
  const { items } = await other.listEvents({ sessionId: "cut", limit: 100_000 });
  assert.ok(items.length >= stored);
  assert.deepEqual(items.map((item) => item.payload.params.i), items.map((_, i) => i + 1));
  await other.close();
});
