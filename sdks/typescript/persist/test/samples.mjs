import { randomUUID } from "node:crypto";

/** A session record with what it must have. */
export function record(more = {}) {
  return { id: randomUUID(), agent: "mock", agentSessionId: "a", lastConnectionId: "c", createdAt: 1_700_000_000_000, ...more };
}

/** An event of a session. */
export function event(sessionId, eventIndex, more = {}) {
  const payload = { jsonrpc: "2.0", method: "session/update", params: { x: eventIndex } };
  return { id: randomUUID(), eventIndex, sessionId, createdAt: 1_700_000_000_000, connectionId: "c", sender: "client", payload, ...more };
}

/** All items of a list, page by page. */
export async function everything(list) {
  const items = [];
  for (let cursor; ; ) {
    const page = await list({ cursor });
    items.push(...page.items);
    if (page.nextCursor === undefined) return items;
    cursor = page.nextCursor;
  }
}
