// The provider against the native API's part that it needs; tests/sandbox-agent/js/provider.mjs is
// the same against a real server.
import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { SandboxAgent, SandboxDestroyedError } from "sandbox-agent";
import { NAME, woodfrog, WoodfrogError } from "../dist/index.js";

/** A server in one function. `failures` are answered first. */
function server() {
  const sandboxes = new Map();
  const made = new Map();
  const requests = [];
  const failures = [];
  const reply = (status, body) => new Response(body === undefined ? null : JSON.stringify(body), { status });
  const problem = (status, code) => reply(status, { status, code, detail: `it is ${code}` });
  const fetch = async (input, init = {}) => {
    const url = new URL(String(input));
    const headers = new Headers(init.headers);
    const body = typeof init.body === "string" ? JSON.parse(init.body) : undefined;
    requests.push({ method: init.method, path: url.pathname, body, key: headers.get("idempotency-key") });
    if (headers.get("authorization") !== "Bearer wf_key") return problem(401, "unauthenticated");
    const failure = failures.shift();
    if (failure) return failure === "html" ? new Response("<html>", { status: 502 }) : problem(...failure);
    const face = /^\/agent\/([^/]+)(\/.*)$/.exec(url.pathname);
    if (face) return sandboxes.get(face[1]) === "running" && face[2] === "/v1/health" ? reply(200, { status: "ok" }) : problem(404, "sandbox_not_found");
    const [, id, action] = /^\/api\/v1\/sandboxes(?:\/([^/]+))?(?:\/(\w+))?$/.exec(url.pathname) ?? [];
    if (!id) {
      const key = headers.get("idempotency-key");
      if (!made.has(key)) {
        made.set(key, `sbx${made.size + 1}`);
        sandboxes.set(made.get(key), "running");
      }
      return reply(201, { id: made.get(key), state: "running" });
    }
    if (!sandboxes.has(id)) return problem(404, "sandbox_not_found");
    if (init.method === "DELETE") return sandboxes.delete(id), reply(204);
    const states = { resume: "running", pause: "paused", hibernate: "hibernated" };
    if (action) sandboxes.set(id, states[action]);
    return reply(200, { id, state: sandboxes.get(id) });
  };
  return { fetch, sandboxes, requests, failures, made };
}

describe("provider", () => {
  let there;
  let provider;
  const options = (more) => ({ baseUrl: "http://wf.test/", apiKey: "wf_key", fetch: there.fetch, ...more });
  beforeEach(() => {
    there = server();
    provider = woodfrog(options());
  });

  test("what it is called and where sandboxes answer", async () => {
    assert.equal(provider.name, NAME);
    assert.equal(provider.defaultCwd, "/home/user");
    assert.equal(await provider.getUrl("a/b"), "http://wf.test/agent/a%2Fb");
    assert.equal(await provider.getToken("x"), "wf_key");
  });

  test("create says what was wanted, and is one however often it is sent", async () => {
    const wanted = { template: "node", env: { A: "b" }, metadata: { m: "n" }, timeoutSeconds: 60 };
    there.failures.push([503, "sandbox_capacity_unavailable"], [409, "idempotency_in_progress"]);
    assert.equal(await woodfrog(options(wanted)).create(), "sbx1");
    assert.equal(there.requests.length, 3);
    assert.equal(new Set(there.requests.map((request) => request.key)).size, 1);
    assert.deepEqual(there.requests[0].body, {
      template: "node", env: { A: "b" }, metadata: { m: "n" }, timeout_seconds: 60, on_timeout: "hibernate", auto_resume: true,
    });
    assert.equal(await provider.create(), "sbx2");
    assert.deepEqual(there.requests.at(-1).body, { on_timeout: "hibernate", auto_resume: true });
  });

  test("destroy and kill; what is gone already is no error", async () => {
    for (const end of [provider.destroy, provider.kill]) {
      const id = await provider.create();
      await end(id);
      assert.equal(there.sandboxes.has(id), false);
      await end(id);
    }
  });

  test("pause, in both ways, and reconnect", async () => {
    const id = await provider.create();
    await provider.pause(id);
    assert.equal(there.sandboxes.get(id), "hibernated");
    await provider.reconnect(id);
    assert.equal(there.sandboxes.get(id), "running");
    await woodfrog(options({ pause: "freeze" })).pause(id);
    assert.equal(there.sandboxes.get(id), "paused");
    await provider.ensureServer(id);
    await provider.ensureServer(id);
    assert.equal(there.sandboxes.get(id), "running");
  });

  test("what is gone is the SDK's own error", async () => {
    for (const call of [provider.reconnect, provider.pause, provider.ensureServer]) {
      await assert.rejects(call("gone"), (error) => {
        assert.ok(error instanceof SandboxDestroyedError);
        assert.deepEqual([error.sandboxId, error.provider], ["gone", "woodfrog"]);
        assert.ok(error.cause instanceof WoodfrogError);
        return true;
      });
    }
    there.sandboxes.set("dying", "deleting");
    await assert.rejects(provider.reconnect("dying"), SandboxDestroyedError);
  });

  test("the SDK starts, pauses, comes back and destroys", async () => {
    const sdk = await SandboxAgent.start({ sandbox: provider, fetch: there.fetch });
    assert.equal(sdk.sandboxId, "woodfrog/sbx1");
    assert.deepEqual(await sdk.getHealth(), { status: "ok" });
    const { sandboxId } = sdk;
    await sdk.pauseSandbox();
    assert.equal(there.sandboxes.get("sbx1"), "hibernated");
    const back = await SandboxAgent.start({ sandbox: provider, sandboxId, fetch: there.fetch });
    assert.equal((await back.getHealth()).status, "ok");
    await back.destroySandbox();
    assert.equal(there.sandboxes.size, 0);
    await assert.rejects(SandboxAgent.start({ sandbox: provider, sandboxId }), SandboxDestroyedError);
    await assert.rejects(SandboxAgent.start({ sandbox: provider, sandboxId: "e2b/x" }), /configured provider is 'woodfrog'/);
    assert.equal(there.made.size, 1);
  });

  test("a sandbox that is moving is asked again; other refusals are told at once", async () => {
    const id = await provider.create();
    there.failures.push([409, "transitioning"], [409, "transitioning"]);
    await provider.ensureServer(id);
    const before = there.requests.length;
    there.failures.push([409, "wake_failed"]);
    await assert.rejects(provider.ensureServer(id), { name: "WoodfrogError", code: "wake_failed", message: "it is wake_failed" });
    there.failures.push("html");
    await assert.rejects(provider.create(), { name: "WoodfrogError", status: 502, code: "unknown" });
    assert.equal(there.requests.length, before + 2);
    const hasty = woodfrog(options({ patienceSeconds: 0.05 }));
    there.failures.push([409, "transitioning"]);
    await assert.rejects(hasty.ensureServer(id), { code: "transitioning" });
  });

  test("bad options and a wrong key", async () => {
    for (const bad of [{ baseUrl: "wf.test" }, { apiKey: "" }, { pause: "x" }, { patienceSeconds: 0 }, { patienceSeconds: NaN }]) {
      assert.throws(() => woodfrog(options(bad)), TypeError, JSON.stringify(bad));
    }
    await assert.rejects(woodfrog(options({ apiKey: "wrong" })).create(), { code: "unauthenticated" });
  });
});
