// The SDK, the provider and a persistence driver against a real server: WOODFROG_URL and, if it asks
// for keys, WOODFROG_API_KEY.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SandboxAgent, SandboxDestroyedError } from "sandbox-agent";
import { memory } from "../../persist/dist/index.js";
import { woodfrog } from "../dist/index.js";

const { WOODFROG_URL, WOODFROG_API_KEY } = process.env;
const skip = WOODFROG_URL ? false : "WOODFROG_URL is not set";
const provider = (more) => woodfrog({ baseUrl: WOODFROG_URL, apiKey: WOODFROG_API_KEY || "none", ...more });
const words = (text) => [{ type: "text", text }];

for (const pause of ["hibernate", "freeze"]) {
  test(`start, prompt, pause (${pause}), come back, prompt, destroy`, { skip, timeout: 180_000 }, async () => {
    const persist = memory();
    const sandbox = provider({ pause, metadata: { test: "provider" } });
    const sdk = await SandboxAgent.start({ sandbox, persist });
    const { sandboxId } = sdk;
    try {
      assert.match(sandboxId, /^woodfrog\/.+/);
      await sdk.writeFsFile({ path: "kept" }, "across the pause");
      const session = await sdk.createSession({ agent: "mock" });
      assert.deepEqual(session.toRecord().sessionInit.cwd, "/home/user");
      assert.equal(session.toRecord().sandboxId, sandboxId);
      await session.prompt(words("hello"));
      await sdk.pauseSandbox();
      const back = await SandboxAgent.start({ sandbox, sandboxId, persist });
      assert.equal(new TextDecoder().decode(await back.readFsFile({ path: "kept" })), "across the pause");
      const resumed = await back.resumeSession(session.id);
      assert.equal((await resumed.prompt(words("again"))).stopReason, "end_turn");
      await back.destroySandbox();
    } catch (error) {
      await sandbox.destroy(sandboxId.slice("woodfrog/".length));
      throw error;
    }
    await assert.rejects(SandboxAgent.start({ sandbox, sandboxId, persist }), SandboxDestroyedError);
  });
}

test("killing removes, ensureServer wakes", { skip, timeout: 180_000 }, async () => {
  const sandbox = provider();
  const sdk = await SandboxAgent.start({ sandbox });
  const id = sdk.sandboxId.slice("woodfrog/".length);
  await sandbox.pause(id);
  await sandbox.ensureServer(id);
  assert.deepEqual(await sdk.getHealth(), { status: "ok" });
  await sdk.killSandbox();
  await assert.rejects(sandbox.reconnect(id), SandboxDestroyedError);
  await sandbox.destroy(id);
});

test("an unknown template is an error, and nothing is left", { skip }, async () => {
  await assert.rejects(SandboxAgent.start({ sandbox: provider({ template: "no-such-template" }) }), { name: "WoodfrogError", status: 404 });
});
