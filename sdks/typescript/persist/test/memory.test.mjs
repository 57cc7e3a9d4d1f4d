import assert from "node:assert/strict";
import { test } from "node:test";
import { actor, memory, STATE_KEY } from "../dist/index.js";
import { contract } from "./contract.mjs";
import { event, record } from "./samples.mjs";

const caps = { maxEventsPerSession: 10_000 };

// An actor's state is kept as JSON and comes back as another object.
let actorState = {};
let saved = 0;
contract("actor", {
  open: (options) => actor({ state: () => actorState, save: () => void (saved += 1), ...caps, ...options }),
  reset: () => void (actorState = {}),
  reopen: () => void (actorState = JSON.parse(JSON.stringify(actorState))),
});

let single = memory(caps);
contract("memory", {
  open: (options) => single.share(options ?? {}),
  reset: () => void (single = memory(caps)),
});

test("an actor's state is a plain object under the SDK's key, saved after each change", async () => {
  const state = { count: 1 };
  let saves = 0;
  const driver = actor({ state, save: async () => void (saves += 1) });
  const one = record({ id: "s" });
  await driver.updateSession(one);
  const sent = event("s", 1);
  await driver.insertEvent("s", sent);
  assert.equal(saves, 2);
  assert.deepEqual(JSON.parse(JSON.stringify(state)), { count: 1, [STATE_KEY]: { sessions: { s: one }, events: { s: [sent] } } });
  assert.ok(saved > 0);
  assert.throws(() => actor({ state: () => undefined }), { name: "InvalidInputError" });
});

for (const [name, open] of [["memory", memory], ["actor", (options) => actor({ state: {}, ...options })]]) {
  test(`${name}: beyond the limit the oldest sessions go, with their events`, async () => {
    const driver = open({ maxSessions: 3, maxEventsPerSession: 4 });
    for (const [id, createdAt] of [["c", 30], ["a", 10], ["b", 20]]) {
      await driver.updateSession(record({ id, createdAt, destroyedAt: id === "c" ? 1 : undefined }));
      await driver.insertEvent(id, event(id, 1));
    }
    await driver.updateSession(record({ id: "a", createdAt: 10 })); // no new one: nobody goes
    await driver.updateSession(record({ id: "d", createdAt: 20 }));
    const ids = async () => (await driver.listSessions()).items.map((item) => item.id);
    assert.deepEqual(await ids(), ["b", "d", "c"]);
    assert.deepEqual((await driver.listEvents({ sessionId: "a" })).items, []);
    await driver.updateSession(record({ id: "old", createdAt: 1 }));
    assert.deepEqual(await ids(), ["b", "d", "c"]);
    for (let i = 1; i <= 9; i += 1) await driver.insertEvent("d", event("d", i));
    assert.deepEqual((await driver.listEvents({ sessionId: "d" })).items.map((item) => item.eventIndex), [6, 7, 8, 9]);
  });

  test(`${name}: limits that are none are the usual ones`, async () => {
    for (const bad of [0, -1, NaN, undefined]) {
      const driver = open({ maxSessions: bad, maxEventsPerSession: bad });
      for (let i = 1; i <= 501; i += 1) await driver.insertEvent("s", event("s", i));
      const { items } = await driver.listEvents({ sessionId: "s", limit: 1000 });
      assert.deepEqual([items.length, items[0].eventIndex], [500, 2]);
    }
    const driver = open({});
    for (let i = 0; i < 1025; i += 1) await driver.updateSession(record({ id: `s${i}`, createdAt: i }));
    assert.equal((await driver.listSessions({ limit: 5000 })).items.length, 1024);
    assert.equal(await driver.getSession("s0"), undefined);
  });

  test(`${name}: pages do not move while old ones are evicted`, async () => {
    const driver = open({ maxSessions: 20, maxEventsPerSession: 20 });
    for (let i = 0; i < 20; i += 1) await driver.updateSession(record({ id: `s${10 + i}`, createdAt: i }));
    const first = await driver.listSessions({ limit: 5 });
    for (let i = 20; i < 30; i += 1) await driver.updateSession(record({ id: `s${10 + i}`, createdAt: i }));
    const second = await driver.listSessions({ limit: 5, cursor: first.nextCursor });
    assert.deepEqual(second.items.map((item) => item.id), ["s20", "s21", "s22", "s23", "s24"]);
    for (let i = 1; i <= 20; i += 1) await driver.insertEvent("s39", event("s39", i));
    const page = await driver.listEvents({ sessionId: "s39", limit: 5 });
    for (let i = 21; i <= 23; i += 1) await driver.insertEvent("s39", event("s39", i));
    const next = await driver.listEvents({ sessionId: "s39", limit: 5, cursor: page.nextCursor });
    assert.deepEqual(next.items.map((item) => item.eventIndex), [6, 7, 8, 9, 10]);
  });

  test(`${name}: events of sessions that are not there are limited too`, async () => {
    const driver = open({ maxSessions: 5 });
    for (let i = 0; i < 50; i += 1) await driver.insertEvent(`orphan${i}`, event(`orphan${i}`, 1));
    let left = 0;
    for (let i = 0; i < 50; i += 1) left += (await driver.listEvents({ sessionId: `orphan${i}` })).items.length;
    assert.ok(left <= 6, `${left} are left`);
    assert.equal((await driver.listEvents({ sessionId: "orphan49" })).items.length, 1);
  });
}
