#!/usr/bin/env node
// Installs what the packages are built and tested with (below this folder only), builds them and
// runs their tests.
//
//   node run-tests.mjs [name part]...          e.g. `sqlite redis`
//   node run-tests.mjs --install               only installs
//
// Needed on the machine: Node 20 or newer, npm; for the tests of those drivers the Debian packages
// chromium, postgresql and redis-server. Servers are started by the tests, on loopback, in folders
// of their own, and stopped by process id.
// With WOODFROG_URL and WOODFROG_API_KEY the tests of the driver `woodfrog` run against that server.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
process.chdir(root);

function run(program, args, env = process.env) {
  const { status, error } = spawnSync(program, args, { stdio: "inherit", env });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

/** Whether what is installed is what the lock file says. */
function installed() {
  const mark = "node_modules/.package-lock.json";
  return existsSync(mark) && statSync(mark).mtimeMs >= statSync("package-lock.json").mtimeMs;
}

/** A Node that has node:sqlite: this one, or the one that npm installed. */
function node() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > 22 || (major === 22 && minor >= 13)) return process.execPath;
  const own = join("node_modules", `node-linux-${process.arch}`, "bin/node");
  if (!existsSync(own)) throw new Error(`the tests of sqlite need Node 22.13; this is ${process.versions.node}, and ${own} is not there`);
  chmodSync(own, 0o755);
  return own;
}

if (!installed()) run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
const parts = process.argv.slice(2);
if (parts.includes("--install")) process.exit();
run(process.execPath, ["node_modules/typescript/bin/tsc", "-b", "persist", "provider"]);
const tests = ["persist", "provider"]
  .flatMap((name) => readdirSync(join(name, "test")).map((file) => join(name, "test", file)))
  .filter((file) => file.endsWith(".test.mjs") && (parts.length === 0 || parts.some((part) => file.includes(part))));
if (tests.length === 0) throw new Error(`no test is called like ${parts.join(" or ")}`);
run(node(), ["--no-warnings", "--test", "--test-reporter=spec", "--test-concurrency=1", "--test-timeout=600000", ...tests]);
