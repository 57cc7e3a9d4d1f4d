// A sandbox-agent server in one function, for the SDK's option `fetch`: each agent server answers
// prompts with what was said.

/** A `fetch` that the SDK can talk to. */
export function agentFetch() {
  const streams = new Map();
  let sessions = 0;
  const encoder = new TextEncoder();
  const reply = (status, body) => new Response(body === undefined ? null : JSON.stringify(body), { status, headers: { "content-type": "application/json" } });
  const stream = (server) => {
    if (!streams.has(server)) {
      const entry = { sequence: 0 };
      entry.body = new ReadableStream({ start: (controller) => void (entry.controller = controller) });
      streams.set(server, entry);
    }
    return streams.get(server);
  };
  const answer = (server, { method, params }) => {
    if (method === "initialize") return { protocolVersion: 1, agentCapabilities: {}, authMethods: [] };
    if (method === "session/new") return { sessionId: `agent-${(sessions += 1)}` };
    const said = params.prompt.at(-1).text;
    const update = { sessionUpdate: "agent_message_chunk", content: { type: "text", text: said } };
    const entry = stream(server);
    const data = JSON.stringify({ jsonrpc: "2.0", method: "session/update", params: { sessionId: params.sessionId, update } });
    entry.controller.enqueue(encoder.encode(`event: message\nid: ${(entry.sequence += 1)}\ndata: ${data}\n\n`));
    return { stopReason: "end_turn" };
  };
  return async (input, init = {}) => {
    const path = new URL(String(input)).pathname;
    if (path === "/v1/health") return reply(200, { status: "ok" });
    const server = path.split("/").at(-1);
    if (init.method === "DELETE") return reply(204);
    if (init.method === "GET") return new Response(stream(server).body, { headers: { "content-type": "text/event-stream" } });
    const request = JSON.parse(init.body);
    if (request.id === undefined) return reply(202);
    return reply(200, { jsonrpc: "2.0", id: request.id, result: answer(server, request) });
  };
}
