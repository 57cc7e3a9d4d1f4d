// The one suite that every driver passes.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { event, everything, record } from "./samples.mjs";

/** What the SDK looks for before it tries the next index. */
const RETRY = /UNIQUE constraint failed: .*session_id, .*event_index/;
const INVALID = { name: "InvalidInputError" };

/**
 * Runs the suite. `open(options)` gives a driver on one and the same store, `reset()` empties that,
 * `reopen()` does what a restart does to it (absent: nothing survives). `writes` is how many events
 * each of two writers stores at once.
 */
export function contract(name, { open, reset, reopen, writes = 2000 }) {
  describe(name, () => {
    let driver;
    const drivers = [];
    const another = async (options) => {
      const made = await open(options);
      drivers.push(made);
      return made;
    };
    const closeAll = async () => {
      for (const made of drivers.splice(0)) await made.close();
    };
    before(async () => {
      driver = await another();
    });
    after(closeAll);
    const fresh = async () => {
      await closeAll();
      await reset();
      driver = await another();
    };

    test("what is not there", async () => {
      assert.equal(await driver.getSession("nobody"), undefined);
      assert.equal(await (await another({ generation: "0.2" })).getSession("nobody"), null);
      assert.deepEqual(await driver.listEvents({ sessionId: "nobody" }), { items: [] });
      await fresh();
      assert.deepEqual(await driver.listSessions(), { items: [] });
    });

    test("a record has exactly its fields", async () => {
      const full = record({
        destroyedAt: 5,
        sandboxId: "woodfrog/x",
        sessionInit: { cwd: "/tmp", mcpServers: [{ name: "a", command: "b", args: ["ü\u0000🐸"], env: [] }] },
        configOptions: [{ id: "model", name: "Model", type: "select", currentValue: "m", options: [{ value: "m", name: "M" }] }],
        modes: { currentModeId: "plan", availableModes: [{ id: "plan", name: "Plan" }] },
      });
      await driver.updateSession(full);
      assert.deepStrictEqual(await driver.getSession(full.id), full);
      const bare = record();
      const undefineds = { destroyedAt: undefined, sandboxId: undefined, sessionInit: undefined, configOptions: undefined, modes: undefined };
      await driver.updateSession({ ...bare, ...undefineds });
      assert.deepStrictEqual(await driver.getSession(bare.id), bare);
      const nothing = record({ modes: null, configOptions: [] });
      await driver.updateSession(nothing);
      assert.deepStrictEqual(await driver.getSession(nothing.id), nothing);
      const { items } = await driver.listSessions({ limit: 1000 });
      assert.deepStrictEqual(items.find((item) => item.id === nothing.id), nothing);
      const odd = record();
      await driver.updateSession({ ...odd, unheardOf: 1 });
      assert.deepStrictEqual(await driver.getSession(odd.id), odd);
    });

    test("an update replaces the whole record", async () => {
      const first = record({ destroyedAt: 7, modes: null, sandboxId: "x" });
      await driver.updateSession(first);
      const second = { ...record({ id: first.id }), agent: "other" };
      await driver.updateSession(second);
      assert.deepStrictEqual(await driver.getSession(first.id), second);
    });

    test("what is given and what is kept share nothing", async () => {
      const given = record({ sessionInit: { cwd: "/a", mcpServers: [] } });
      const kept = structuredClone(given);
      await driver.updateSession(given);
      given.sessionInit.cwd = "/changed";
      (await driver.getSession(given.id)).sessionInit.cwd = "/changed";
      assert.deepStrictEqual(await driver.getSession(given.id), kept);
      const sent = event(given.id, 1);
      const copy = structuredClone(sent);
      await driver.insertEvent(given.id, sent);
      sent.payload.params.x = "changed";
      (await driver.listEvents({ sessionId: given.id })).items[0].payload.params.x = "changed";
      assert.deepStrictEqual((await driver.listEvents({ sessionId: given.id })).items, [copy]);
    });

    test("sessions are in the order of their time, then of their id", async () => {
      await fresh();
      const times = { b: 3, a: 3, z: 1, c: 3, m: 2, "a-": 3, B: 3 };
      for (const [id, createdAt] of Object.entries(times)) await driver.updateSession(record({ id, createdAt }));
      const { items } = await driver.listSessions();
      assert.deepEqual(items.map((item) => item.id), ["z", "m", "B", "a", "a-", "b", "c"]);
    });

    test("pages: limits, cursors, the end", async () => {
      await fresh();
      const ids = Array.from({ length: 105 }, (_, i) => `s${String(i).padStart(3, "0")}`);
      for (const [i, id] of ids.entries()) await driver.updateSession(record({ id, createdAt: i }));
      const first = async (request) => (await driver.listSessions(request)).items.map((item) => item.id);
      for (const limit of [undefined, 0, -1, 0.5, NaN, Infinity]) assert.equal((await first({ limit })).length, 100, `limit ${limit}`);
      assert.equal((await first({ limit: 2.9 })).length, 2);
      assert.equal((await first({ limit: 5000 })).length, 105);
      for (const cursor of [undefined, "", "x", "-3", "NaN", "k1:x", "k1:1"]) assert.equal((await first({ cursor, limit: 1 }))[0], "s000", `cursor ${cursor}`);
      // The SDK's own drivers have cursors that are offsets.
      assert.deepEqual(await first({ cursor: "100", limit: 3 }), ["s100", "s101", "s102"]);
      assert.deepEqual(await driver.listSessions({ cursor: "105" }), { items: [] });
      assert.deepEqual((await everything((page) => driver.listSessions({ ...page, limit: 10 }))).map((item) => item.id), ids);
      const whole = await driver.listSessions({ limit: 105 });
      assert.equal("nextCursor" in whole, false);
      assert.equal(typeof (await driver.listSessions({ limit: 104 })).nextCursor, "string");
    });

    test("events are in the order of their index, each with exactly its fields", async () => {
      const sessionId = randomUUID();
      const strange = { jsonrpc: "2.0", id: null, result: { deep: [[{ a: null }], "ü\u0000🐸\n\"", 1e21, -0.5, true], "": 1, "a.b": {} } };
      const sent = [event(sessionId, 3), event(sessionId, 1, { sender: "agent", payload: strange }), event(sessionId, 2)];
      for (const one of sent) await driver.insertEvent(sessionId, one);
      await driver.insertEvent("other", event("other", 1, { id: randomUUID() })).catch(() => {});
      const { items } = await driver.listEvents({ sessionId });
      assert.deepStrictEqual(items, [sent[1], sent[2], sent[0]]);
    });

    test("pages of events", async () => {
      const sessionId = randomUUID();
      for (let i = 1; i <= 105; i += 1) await driver.insertEvent(sessionId, event(sessionId, i));
      const { items, nextCursor } = await driver.listEvents({ sessionId });
      assert.equal(items.length, 100);
      const rest = await driver.listEvents({ sessionId, cursor: nextCursor });
      assert.deepEqual(rest.items.map((item) => item.eventIndex), [101, 102, 103, 104, 105]);
      assert.equal("nextCursor" in rest, false);
      const offset = await driver.listEvents({ sessionId, cursor: "103", limit: 1 });
      assert.equal(offset.items[0].eventIndex, 104);
      const all = await everything((page) => driver.listEvents({ ...page, sessionId, limit: 7 }));
      assert.deepEqual(all.map((item) => item.eventIndex), Array.from({ length: 105 }, (_, i) => i + 1));
    });

    test("both generations of insertEvent", async () => {
      const sessionId = randomUUID();
      const [one, two] = [event(sessionId, 1), event(sessionId, 2)];
      await driver.insertEvent(sessionId, one);
      await driver.insertEvent(two);
      assert.deepStrictEqual((await driver.listEvents({ sessionId })).items, [one, two]);
    });

    test("an index that is taken is refused in the words that the SDK knows", async () => {
      const sessionId = randomUUID();
      const first = event(sessionId, 1);
      await driver.insertEvent(sessionId, first);
      await assert.rejects(driver.insertEvent(sessionId, event(sessionId, 1)), (error) => {
        assert.match(error.message, RETRY);
        assert.equal(error.name, "EventIndexConflictError");
        return true;
      });
      await driver.insertEvent(sessionId, first); // the same again is no conflict
      assert.deepStrictEqual((await driver.listEvents({ sessionId })).items, [first]);
      await assert.rejects(driver.insertEvent(sessionId, { ...first, eventIndex: 2 }), (error) => {
        assert.doesNotMatch(error.message, RETRY);
        assert.equal(error.name, "EventIdConflictError");
        return true;
      });
      const elsewhere = randomUUID();
      await driver.insertEvent(elsewhere, event(elsewhere, 1));
    });

    test(`two writers, ${writes} events each: one dense order`, async () => {
      const sessionId = randomUUID();
      const write = async (writer, one) => {
        let index = 0;
        for (let i = 0; i < writes; i += 1) {
          for (let stored = false; !stored; ) {
            index += 1;
            const payload = { jsonrpc: "2.0", method: "m", params: { writer, i } };
            stored = await one.insertEvent(sessionId, event(sessionId, index, { payload })).then(
              () => true,
              (error) => {
                assert.match(error.message, RETRY);
                return false;
              },
            );
          }
        }
      };
      await Promise.all([write("a", driver), write("b", await another())]);
      const all = await everything((page) => driver.listEvents({ ...page, sessionId, limit: 500 }));
      assert.deepEqual(all.map((item) => item.eventIndex), Array.from({ length: 2 * writes }, (_, i) => i + 1));
      for (const writer of ["a", "b"]) {
        const own = all.map((item) => item.payload.params).filter((params) => params.writer === writer);
        assert.deepEqual(own.map((params) => params.i), Array.from({ length: writes }, (_, i) => i));
      }
    });

    test("with `append`, an index that is taken becomes the next free one", async () => {
      const sessionId = randomUUID();
      const write = async (one) => {
        for (let i = 1; i <= 50; i += 1) await one.insertEvent(sessionId, event(sessionId, i));
      };
      await Promise.all([write(await another({ onConflict: "append" })), write(await another({ onConflict: "append" }))]);
      const all = await everything((page) => driver.listEvents({ ...page, sessionId }));
      assert.deepEqual(all.map((item) => item.eventIndex), Array.from({ length: 100 }, (_, i) => i + 1));
    });

    test("pages stay as they are while others insert and remove", async () => {
      await fresh();
      const ids = Array.from({ length: 40 }, (_, i) => `m${String(i).padStart(2, "0")}`);
      for (const [i, id] of ids.entries()) await driver.updateSession(record({ id, createdAt: 1000 + i }));
      const seen = [];
      let turn = 0;
      for (let cursor; ; ) {
        const page = await driver.listSessions({ cursor, limit: 6 });
        seen.push(...page.items.map((item) => item.id));
        if (!(cursor = page.nextCursor)) break;
        turn += 1;
        // One before everything that was read, one that was the last of the page, one at the end.
        await driver.updateSession(record({ id: `early${turn}`, createdAt: turn }));
        await driver.deleteSession(page.items.at(-1).id);
        await driver.deleteSession(page.items[0].id);
      }
      assert.deepEqual(seen, ids);
      const sessionId = randomUUID();
      for (let i = 1; i <= 40; i += 1) await driver.insertEvent(sessionId, event(sessionId, 10 * i));
      const indexes = [];
      for (let cursor; ; ) {
        const page = await driver.listEvents({ sessionId, cursor, limit: 6 });
        indexes.push(...page.items.map((item) => item.eventIndex));
        if (!(cursor = page.nextCursor)) break;
        await driver.insertEvent(sessionId, event(sessionId, indexes.length + 1));
      }
      assert.deepEqual(indexes, Array.from({ length: 40 }, (_, i) => 10 * (i + 1)));
    });

    test("a session is removed with its events, and only it", async () => {
      const [gone, stays] = [record(), record()];
      for (const one of [gone, stays]) {
        await driver.updateSession(one);
        await driver.insertEvent(one.id, event(one.id, 1));
      }
      await driver.deleteSession(gone.id);
      await driver.deleteSession(gone.id);
      assert.equal(await driver.getSession(gone.id), undefined);
      assert.deepEqual(await driver.listEvents({ sessionId: gone.id }), { items: [] });
      assert.equal((await driver.listEvents({ sessionId: stays.id })).items.length, 1);
      await driver.insertEvent(gone.id, event(gone.id, 1));
    });

    test("names that mean something elsewhere are only names", async () => {
      for (const id of ["__proto__", "constructor", "a'b\"c;--", "a/b?c#d%2F", "{x}", "ünï 🐸", "a:b", "...", "k1:1:x"]) {
        const one = record({ id });
        await driver.updateSession(one);
        assert.deepStrictEqual(await driver.getSession(id), one);
        const sent = event(id, 1);
        await driver.insertEvent(id, sent);
        assert.deepStrictEqual((await driver.listEvents({ sessionId: id })).items, [sent]);
        await driver.deleteSession(id);
        assert.equal(await driver.getSession(id), undefined);
      }
    });

    test("what cannot be stored is refused, and nothing of it is kept", async () => {
      const good = record();
      for (const bad of [{ id: "" }, { id: 5 }, { id: "x".repeat(600) }, { id: "a\u0000" }, { id: ".." }, { agent: undefined }, { agentSessionId: 1 }, { createdAt: NaN }, { createdAt: 1.5 }, { createdAt: "1" }, { destroyedAt: "x" }]) {
        await assert.rejects(driver.updateSession({ ...good, ...bad }), INVALID, JSON.stringify(bad));
      }
      await assert.rejects(driver.updateSession(null), INVALID);
      assert.equal(await driver.getSession(good.id), undefined);
      const sessionId = randomUUID();
      const one = event(sessionId, 1);
      for (const bad of [{ id: "" }, { eventIndex: 0 }, { eventIndex: -1 }, { eventIndex: 1.5 }, { eventIndex: "1" }, { sender: "x" }, { payload: undefined }, { payload: "x" }, { createdAt: undefined }, { connectionId: 1 }]) {
        await assert.rejects(driver.insertEvent(sessionId, { ...one, ...bad }), INVALID, JSON.stringify(bad));
      }
      await assert.rejects(driver.insertEvent("another", one), INVALID);
      await assert.rejects(driver.insertEvent(sessionId), INVALID);
      await assert.rejects(driver.getSession(""), INVALID);
      await assert.rejects(driver.listEvents({}), INVALID);
      assert.deepEqual(await driver.listEvents({ sessionId }), { items: [] });
    });

    test("bad options are refused", async () => {
      await assert.rejects(async () => open({ onConflict: "ignore" }), INVALID);
      await assert.rejects(async () => open({ generation: "0.1" }), INVALID);
    });

    if (reopen) {
      test("everything is there after a restart", async () => {
        const kept = record({ modes: null });
        await driver.updateSession(kept);
        const sent = Array.from({ length: 20 }, (_, i) => event(kept.id, i + 1));
        for (const one of sent) await driver.insertEvent(kept.id, one);
        await closeAll();
        await reopen();
        driver = await another();
        assert.deepStrictEqual(await driver.getSession(kept.id), kept);
        assert.deepStrictEqual((await driver.listEvents({ sessionId: kept.id })).items, sent);
        await assert.rejects(driver.insertEvent(kept.id, event(kept.id, 20)), RETRY);
      });
    }
  });
}
