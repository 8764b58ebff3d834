import assert from "node:assert/strict";
import { test } from "node:test";

import { bounds, byTag, exampleOf, typeName } from "../../../admin-api/console/example.js";
import { fieldAt } from "../../../admin-api/console/form.js";
import {
  bodySchema,
  choicesOf,
  kindOf,
  pointerParts,
  providerSchema,
  resolve,
  simple,
} from "../../../admin-api/console/schema.js";

const ref = (name) => ({ $ref: `#/components/schemas/${name}` });
const provider = (type, config) => ({
  type: "object",
  required: ["type", "name"],
  properties: {
    type: { type: "string", enum: [type] },
    name: { type: "string" },
    adapterConfig: ref(config),
    credentials: {},
  },
});
const DOCUMENT = {
  tags: [{ name: "second" }, { name: "first" }, { name: "unused" }],
  paths: {
    "/admin/providers": {
      parameters: [{ $ref: "#/components/parameters/Limit" }],
      get: { tags: ["first"], responses: {} },
      post: { tags: ["second"], requestBody: { content: { "application/json": { schema: ref("Input") } } } },
    },
    "/untagged": { delete: {} },
  },
  components: {
    parameters: { Limit: { name: "limit", in: "query", schema: { type: "integer" } } },
    schemas: {
      Input: { oneOf: [ref("Proxy"), ref("Cli")] },
      Proxy: provider("proxy", "ProxyConfig"),
      Cli: provider("spawn-cli", "CliConfig"),
      ProxyConfig: {
        type: "object",
        required: ["baseUrl"],
        properties: { baseUrl: { type: "string", examples: ["https://x/v1"] } },
      },
      CliConfig: { type: "object", properties: { cli: { type: "string" } } },
      Again: ref("Again"),
      Tree: { type: "object", properties: { child: ref("Tree"), name: { type: "string" } } },
    },
  },
};

test("references are followed, and those that go in circles or nowhere end", () => {
  assert.equal(resolve(DOCUMENT, ref("CliConfig")).properties.cli.type, "string");
  assert.equal(resolve(DOCUMENT, { ...ref("CliConfig"), description: "beside" }).description, "beside");
  assert.deepEqual(resolve(DOCUMENT, ref("Again")), {});
  assert.deepEqual(resolve(DOCUMENT, ref("Nothing")), {});
  assert.deepEqual(resolve(DOCUMENT, { $ref: "https://elsewhere.example/schema" }), {});
});

test("null is told apart from the type", () => {
  for (const schema of [
    { type: ["integer", "null"], minimum: 1 },
    { oneOf: [{ type: "null" }, { type: "integer", minimum: 1 }] },
    { anyOf: [{ type: "integer", minimum: 1 }, { type: "null" }] },
  ]) {
    const { type, minimum, nullable } = simple(DOCUMENT, schema);
    assert.deepEqual({ type, minimum, nullable }, { type: "integer", minimum: 1, nullable: true });
  }
  assert.equal(simple(DOCUMENT, { type: "string" }).nullable, undefined);
});

test("members of allOf come together", () => {
  const schema = simple(DOCUMENT, {
    allOf: [ref("ProxyConfig"), { properties: { more: { type: "boolean" } }, required: ["more"] }],
  });
  assert.deepEqual(Object.keys(schema.properties).sort(), ["baseUrl", "more"]);
  assert.deepEqual(schema.required.sort(), ["baseUrl", "more"]);
});

test("a provider's form is that of its type", () => {
  const config = (type) =>
    Object.keys(simple(DOCUMENT, providerSchema(DOCUMENT, type).properties.adapterConfig).properties);
  assert.deepEqual(config("proxy"), ["baseUrl"]);
  assert.deepEqual(config("spawn-cli"), ["cli"]);
  assert("credentials" in providerSchema(DOCUMENT, "proxy").properties);
  assert(
    !("credentials" in providerSchema(DOCUMENT, "spawn-cli").properties),
    "a CLI's credential is its runner's",
  );
});

test("each kind of value has its kind of field", () => {
  for (const [kind, schema] of [
    ["text", { type: "string" }],
    ["secret", { type: "string", format: "password" }],
    ["secret", { type: ["string", "null"], writeOnly: true }],
    ["time", { type: "string", format: "date-time" }],
    ["number", { type: "integer" }],
    ["flag", { type: "boolean" }],
    ["choice", { type: "string", enum: ["a", "b"] }],
    ["choice", { oneOf: [{ const: "a" }, { const: "b" }] }],
    ["lines", { type: "array", items: { type: "string" } }],
    ["list", { type: "array", items: ref("ProxyConfig") }],
    ["object", ref("ProxyConfig")],
    ["pairs", { type: "object", additionalProperties: { type: "string" } }],
    ["json", { type: "object" }],
    ["json", {}],
    ["json", { oneOf: [{ type: "string" }, { type: "integer" }] }],
  ]) {
    assert.equal(kindOf(DOCUMENT, simple(DOCUMENT, schema)), kind, JSON.stringify(schema));
  }
  assert.deepEqual(choicesOf(DOCUMENT, { enum: ["a", null] }), ["a"]);
});

test("pointers lead to the field, or the closest around it", () => {
  assert.deepEqual(pointerParts("/models/0/a~1b~0c"), ["models", "0", "a/b~c"]);
  assert.deepEqual(pointerParts(""), []);
  const leaf = { child: () => null };
  const items = { child: (part) => (part === "0" ? leaf : null) };
  const root = { child: (part) => ({ models: items, name: leaf })[part] ?? null };
  assert.equal(fieldAt(root, "/models/0"), leaf);
  assert.equal(fieldAt(root, "/models/0/deeper"), leaf);
  assert.equal(fieldAt(root, "/models/7/dyadModelId"), items);
  assert.equal(fieldAt(root, "/nothing"), null);
  assert.equal(fieldAt(root, ""), null);
});

test("operations come by tag, with the parameters of their path", () => {
  const tags = byTag(DOCUMENT);
  assert.deepEqual(
    tags.map(([tag]) => tag),
    ["second", "first", "other"],
  );
  assert.equal(tags[0][1][0].operation.parameters[0].name, "limit");
  assert.deepEqual(bodySchema(DOCUMENT, "/admin/providers", "post"), ref("Input"));
  assert.deepEqual(bodySchema(DOCUMENT, "/nothing", "post"), {});
});

test("types, bounds and examples read well", () => {
  assert.equal(typeName(DOCUMENT, { type: "array", items: ref("ProxyConfig") }), "array of ProxyConfig");
  assert.equal(typeName(DOCUMENT, { type: ["string", "null"], format: "date" }), "string (date) or null");
  assert.equal(typeName(DOCUMENT, { enum: ["a", "b"] }), '"a" | "b"');
  assert.equal(typeName(DOCUMENT, ref("Input")), "Proxy or Cli");
  assert.deepEqual(bounds({ minimum: 0, maxLength: 5, default: false }), [
    "default false",
    "at least 0",
    "at most 5 characters",
  ]);
  assert.deepEqual(exampleOf(DOCUMENT, ref("ProxyConfig")), { baseUrl: "https://x/v1" });
  assert.equal(exampleOf(DOCUMENT, ref("Input")).type, "proxy");
  assert(
    JSON.stringify(exampleOf(DOCUMENT, ref("Tree"))).length < 1_000,
    "an example of what contains itself ends",
  );
});
