// The persistence API in a few lines, for where no server is at hand: docs/design/persist-api.md.
import { createServer } from "node:http";
import { memory } from "../dist/index.js";

const KEY = "wf_test";

/** Starts it on loopback; sessions are in memory. */
export async function standIn() {
  let driver = fresh();
  const server = createServer(async (request, response) => {
    const reply = (status, body) => {
      response.writeHead(status, { "content-type": status >= 400 ? "application/problem+json" : "application/json" });
      response.end(body === undefined ? undefined : JSON.stringify(body));
    };
    const problem = (status, code, detail, pointer) => reply(status, { status, code, detail, errors: pointer ? [{ pointer, detail }] : [] });
    if (request.headers.authorization !== `Bearer ${KEY}`) return problem(401, "unauthenticated", "no key");
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const url = new URL(request.url, "http://x");
    const [, id, events] = /^\/api\/v1\/persist\/sessions(?:\/([^/]+)(\/events)?)?$/.exec(url.pathname) ?? [];
    try {
      reply(...(await answer(driver, request.method, id && decodeURIComponent(id), events, url.searchParams, body)));
    } catch (error) {
      if (error.name === "EventIndexConflictError") problem(409, "conflict", error.message, "#/eventIndex");
      else if (error.name === "EventIdConflictError") problem(409, "conflict", error.message, "#/id");
      else problem(400, "invalid_argument", error.message);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    baseUrl: `http://127.0.0.1:${server.address().port}`,
    apiKey: KEY,
    reset: () => void (driver = fresh()),
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

function fresh() {
  return memory({ maxSessions: 1_000_000, maxEventsPerSession: 1_000_000 });
}

async function answer(driver, method, id, events, query, body) {
  const wanted = { cursor: query.get("cursor") ?? undefined, limit: Math.min(1000, Number(query.get("limit") ?? NaN)) };
  if (id === undefined) return [200, await driver.listSessions(wanted)];
  if (events) {
    if (method === "POST") return [204, await driver.insertEvent(id, JSON.parse(body))];
    if (query.get("order") !== "desc") return [200, await driver.listEvents({ ...wanted, sessionId: id })];
    const { items } = await driver.listEvents({ sessionId: id, limit: 1_000_000 });
    return [200, { items: items.reverse().slice(0, wanted.limit) }];
  }
  if (method === "PUT") return [204, await driver.updateSession(JSON.parse(body))];
  const there = await driver.getSession(id);
  if (!there && method === "GET") return [404, { status: 404, code: "not_found", detail: "no such session" }];
  if (method === "DELETE") {
    await driver.deleteSession(id);
    return there ? [204] : [404, { status: 404, code: "not_found", detail: "no such session" }];
  }
  return [200, there];
}
