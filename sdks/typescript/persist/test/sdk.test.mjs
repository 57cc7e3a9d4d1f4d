// The unmodified SDK over each driver: what it stores, resumes and counts.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { SandboxAgent } from "sandbox-agent";
import { actor, memory, postgres, redis, sqlite, woodfrog } from "../dist/index.js";
import { agentFetch } from "./agent.mjs";
import { everything } from "./samples.mjs";
import { folder, postgresServer, redisServer } from "./services.mjs";
import { standIn } from "./standin.mjs";

const dir = folder();
const services = await Promise.all([redisServer(), postgresServer(), standIn()]);
after(async () => {
  for (const service of services) await service.stop();
  dir.remove();
});
const [redisUrl, postgresUrl, { baseUrl, apiKey }] = [services[0].url, services[1].url, services[2]];

const state = {};
const single = memory({ maxEventsPerSession: 10_000 });
const drivers = {
  memory: (options) => single.share(options),
  actor: (options) => actor({ state, maxEventsPerSession: 10_000, ...options }),
  sqlite: (options) => sqlite({ filename: join(dir.path, "sdk.db"), ...options }),
  postgres: (options) => postgres({ connectionString: postgresUrl, ...options }),
  redis: (options) => redis({ url: redisUrl, ...options }),
  woodfrog: (options) => woodfrog({ baseUrl, apiKey, ...options }),
};

async function until(probe, what) {
  for (const end = Date.now() + 20_000; ; ) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`timed out: ${what}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

for (const [name, open] of Object.entries(drivers)) {
  describe(name, () => {
    const fetch = agentFetch();
    const prompts = (events) => events.map((event) => event.payload).filter((payload) => payload.method === "session/prompt");
    const all = (persist, sessionId) => everything((page) => persist.listEvents({ ...page, sessionId, limit: 50 }));
    const stored = (persist, sessionId, turns) =>
      until(async () => {
        const events = await all(persist, sessionId);
        const done = events.filter((event) => event.payload.result?.stopReason).length;
        const said = events.filter((event) => event.payload.method === "session/update").length;
        return done === turns && said === turns && events;
      }, `${turns} turns are stored`);

    test("a session goes on with another client", async () => {
      const persist = await open({});
      const sdk = await SandboxAgent.connect({ fetch, persist });
      const session = await sdk.createSession({ agent: "mock", cwd: "/", id: `resume-${name}` });
      await session.prompt([{ type: "text", text: "my name is Rosa" }]);
      await stored(persist, session.id, 1);
      await sdk.dispose();
      const other = await SandboxAgent.connect({ fetch, persist });
      const back = await other.resumeSession(session.id);
      await back.prompt([{ type: "text", text: "who am I?" }]);
      const events = await stored(persist, session.id, 2);
      assert.deepEqual(events.map((event) => event.eventIndex), events.map((_, i) => i + 1));
      assert.ok(prompts(events)[1].params.prompt[0].text.includes("my name is Rosa"));
      assert.deepStrictEqual(await persist.getSession(session.id), JSON.parse(JSON.stringify(back.toRecord())));
      await other.destroySession(session.id);
      assert.equal(typeof (await persist.getSession(session.id)).destroyedAt, "number");
      await other.dispose();
      await persist.close();
    });

    test("two clients write one session at once: nothing is lost, with `append`", async () => {
      const id = `both-${name}`;
      const persists = await Promise.all([open({ onConflict: "append" }), open({ onConflict: "append" })]);
      const clients = await Promise.all(persists.map((persist) => SandboxAgent.connect({ fetch, persist })));
      await clients[0].createSession({ agent: "mock", cwd: "/", id });
      const sessions = [await clients[0].getSession(id), await clients[1].getSession(id)];
      // Each client binds the session to its own connection, again and again; the order is one.
      const turns = 20;
      for (let i = 0; i < turns; i += 1) {
        await Promise.all(sessions.map((session, client) => session.prompt([{ type: "text", text: `${client}:${i}` }])));
      }
      const seen = await stored(persists[0], id, 2 * turns);
      assert.deepEqual(seen.map((event) => event.eventIndex), seen.map((_, i) => i + 1));
      const said = prompts(seen).map((payload) => payload.params.prompt.at(-1).text);
      for (const client of [0, 1]) {
        assert.deepEqual(said.filter((text) => text.startsWith(`${client}:`)), Array.from({ length: turns }, (_, i) => `${client}:${i}`));
      }
      for (const client of clients) await client.dispose();
      for (const persist of persists) await persist.close();
    });
  });
}
