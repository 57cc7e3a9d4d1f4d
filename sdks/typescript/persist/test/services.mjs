// Servers for the tests: on loopback, in folders of their own, ended by their process id.
import { spawn, spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";

/** A folder that `remove` takes away; who wrote to it may be at it for a moment more. */
export function folder() {
  const path = mkdtempSync(join(tmpdir(), "wf-persist-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }) };
}

/** A port of loopback that nobody listens on. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** A server ended before it answered. */
class Ended extends Error {}

/** Waits until `ready` succeeds, as long as `child` lives. */
async function answering(child, what, ready) {
  const end = Date.now() + 30_000;
  for (;;) {
    if (child.exitCode !== null) throw new Ended(`${what} ended with ${child.exitCode}`);
    const error = await ready().then(() => undefined, (error) => error);
    if (!error) return;
    if (Date.now() > end) throw new Error(`${what} does not answer: ${error.message}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** What `start` makes of a free port: another one if somebody else was faster to take it. */
async function onFreePort(start) {
  for (let tries = 1; ; tries += 1) {
    const port = await freePort();
    try {
      return { port, child: await start(port) };
    } catch (error) {
      if (!(error instanceof Ended) || tries === 5) throw error;
    }
  }
}

/** Redis accepts connections before it has read its file. */
function redisPing(port) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write("PING\r\n"));
    // On its port may be something that is no Redis.
    socket.setTimeout(5_000, () => socket.destroy(new Error("no answer")));
    socket.on("error", reject).on("close", () => reject(new Error("no answer"))).on("data", (data) => {
      socket.destroy();
      if (String(data).startsWith("+PONG")) resolve();
      else reject(new Error(String(data)));
    });
  });
}

async function postgresPing(connectionString) {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 5_000 });
  client.on("error", () => {});
  await client.connect();
  await client.end();
}

async function ended(child, signal) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const over = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  await over;
}

/** Redis, with every write on disk; `restart` kills it and starts it again. */
export async function redisServer() {
  const { path, remove } = folder();
  const args = ["--bind", "127.0.0.1", "--dir", path, "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
  const start = async (port) => {
    const child = spawn("redis-server", ["--port", String(port), ...args], { stdio: "ignore" });
    await answering(child, "redis-server", () => redisPing(port));
    return child;
  };
  let { port, child } = await onFreePort(start);
  return {
    url: `redis://127.0.0.1:${port}`,
    async restart() {
      await ended(child, "SIGKILL");
      child = await start(port);
    },
    async stop() {
      await ended(child, "SIGKILL");
      remove();
    },
  };
}

/** The newest Postgres that Debian's packages have put there. */
function postgresPrograms() {
  const root = "/usr/lib/postgresql";
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  if (versions.length === 0) throw new Error("Postgres is not installed: apt-get install postgresql");
  return join(root, versions[0], "bin");
}

/** Postgres, which refuses to run as root and then runs as `postgres`. */
export async function postgresServer() {
  const { path, remove } = folder();
  const bin = postgresPrograms();
  const root = process.getuid() === 0;
  const as = (program, args) => (root ? ["runuser", ["-u", "postgres", "--", join(bin, program), ...args]] : [join(bin, program), args]);
  if (root) {
    const id = (flag) => Number(spawnSync("id", [flag, "postgres"], { encoding: "utf8" }).stdout);
    chownSync(path, id("-u"), id("-g"));
  }
  const data = join(path, "data");
  const [init, initArgs] = as("initdb", ["-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
  const made = spawnSync(init, initArgs, { encoding: "utf8", cwd: path });
  if (made.status !== 0) throw new Error(`initdb: ${made.stderr}`);
  const url = (port) => `postgres://postgres@127.0.0.1:${port}/postgres`;
  const { port, child } = await onFreePort(async (port) => {
    const settings = ["-D", data, "-p", String(port), "-k", path, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"];
    const [program, args] = as("postgres", settings);
    const child = spawn(program, args, { stdio: "ignore", cwd: path });
    await answering(child, "postgres", () => postgresPing(url(port)));
    return child;
  });
  return {
    url: url(port),
    async stop() {
      const over = new Promise((resolve) => child.once("exit", resolve));
      process.kill(Number(readFileSync(join(data, "postmaster.pid"), "utf8").split("\n")[0]), "SIGQUIT");
      await over;
      remove();
    },
  };
}
