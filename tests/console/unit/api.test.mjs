import assert from "node:assert/strict";
import { test } from "node:test";

import { Api, ApiError, RepeatKey, withQuery } from "../../../admin-api/console/api.js";

const json = (status, body, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json", ...headers } });

/** An API that answers with what it is given, and remembers what it was asked. */
function api(answer) {
  const asked = [];
  const refused = [];
  const fetcher = async (url, init) => {
    asked.push({ url, ...init });
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { asked, refused, api: new Api("a.b.c", (error) => refused.push(error), fetcher) };
}

test("a request has the token, the version and the idempotency key as headers, and nothing in the address", async () => {
  const { api: to, asked } = api(json(200, { ok: true }, { etag: '"4"' }));
  const { body, etag } = await to.put("/admin/x", { a: 1 }, { ifMatch: '"3"', repeatKey: "k" });
  assert.deepEqual([body, etag], [{ ok: true }, '"4"']);
  const [{ url, method, headers, body: sent, redirect, credentials }] = asked;
  assert.deepEqual([url, method, sent], ["/admin/x", "PUT", '{"a":1}']);
  assert.deepEqual([redirect, credentials], ["error", "omit"], "the token goes nowhere else");
  assert.equal(headers.authorization, "Bearer a.b.c");
  assert.equal(headers["if-match"], '"3"');
  assert.equal(headers["idempotency-key"], "k");
});

test("what the API refuses is told in its own words", async () => {
  const details = [{ pointer: "/name", message: "is required" }];
  const { api: to, refused } = api(
    json(
      400,
      { error: { message: "not valid", code: "invalid_request", details } },
      { "x-request-id": "req_1" },
    ),
  );
  const error = await to.post("/admin/x", {}).catch((thrown) => thrown);
  assert(error instanceof ApiError);
  assert.deepEqual(
    [error.message, error.status, error.code, error.details, error.requestId],
    ["not valid", 400, "invalid_request", details, "req_1"],
  );
  assert.equal(refused.length, 0);
});

test("a token that is not accepted is told", async () => {
  const { api: to, refused } = api(json(401, { error: { message: "expired", code: "invalid_token" } }));
  await assert.rejects(to.get("/admin/x"), ApiError);
  assert.deepEqual(
    refused.map(({ message }) => message),
    ["expired"],
  );
});

test("silence, and answers of others, are errors that people can read", async () => {
  for (const [answer, text] of [
    [new TypeError("fetch failed"), /does not answer/],
    [new Response("<html>", { status: 502, headers: { "content-type": "text/html" } }), /status 502/],
    [new Response("{", { status: 500, headers: { "content-type": "application/json" } }), /status 500/],
    [json(500, { error: "text" }), /status 500/],
    [json(400, { error: { message: 7, details: "x" } }), /status 400/],
  ]) {
    const error = await api(answer)
      .api.get("/admin/x")
      .catch((thrown) => thrown);
    assert(error instanceof ApiError);
    assert.match(error.message, text);
    assert.deepEqual(error.details, []);
  }
});

test("the same body has the same idempotency key, another has another", () => {
  const repeat = new RepeatKey();
  const first = repeat.for({ a: 1 });
  assert.equal(repeat.for({ a: 1 }), first);
  assert.notEqual(repeat.for({ a: 2 }), first);
  assert.match(first, /^[0-9a-f]{32}$/);
});

test("parameters without a value are left out, the others escaped", () => {
  assert.equal(withQuery("/x", { a: "1&b=2", c: "", d: null, e: undefined, f: 0 }), "/x?a=1%26b%3D2&f=0");
  assert.equal(withQuery("/x", {}), "/x");
});
