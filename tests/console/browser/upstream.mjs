// An upstream that speaks OpenAI's API: it answers every chat with a few words, if it is given a key that it takes.

import { createServer } from "node:http";
import { once } from "node:events";

const USAGE = { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 };

export async function startUpstream(keys) {
  const seen = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const key = (request.headers.authorization ?? "").replace(/^Bearer /, "");
    seen.push({ path: request.url, key });
    const send = (status, body) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    if (!keys.has(key)) {
      return send(401, {
        error: { message: "Incorrect API key", type: "invalid_request_error", code: "invalid_api_key" },
      });
    }
    if (request.url.endsWith("/models")) {
      return send(200, {
        object: "list",
        data: [{ id: "small", object: "model", created: 1, owned_by: "us" }],
      });
    }
    const { model, stream } = JSON.parse(Buffer.concat(chunks).toString());
    const base = { id: "chatcmpl-1", created: 1, model };
    if (!stream) {
      const message = { role: "assistant", content: "Hello from upstream." };
      const choices = [{ index: 0, message, finish_reason: "stop" }];
      return send(200, { ...base, object: "chat.completion", choices, usage: USAGE });
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const chunk = (fields) =>
      response.write(`data: ${JSON.stringify({ ...base, object: "chat.completion.chunk", ...fields })}\n\n`);
    chunk({
      choices: [
        { index: 0, delta: { role: "assistant", content: "Hello from upstream." }, finish_reason: null },
      ],
    });
    chunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] });
    chunk({ choices: [], usage: USAGE });
    response.end("data: [DONE]\n\n");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}/v1`,
    /** Requests so far: `{path, key}`. */
    seen,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
