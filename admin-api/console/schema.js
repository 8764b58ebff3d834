// JSON Schemas of the API's document, made simple enough to build a form or a description from. Nothing here touches
// the page.

/** How deep references are followed. */
const MAX_DEPTH = 32;

/** What a `$ref` within the document means. */
export function resolve(document, schema) {
  let at = schema ?? {};
  for (let step = 0; at.$ref !== undefined; step++) {
    if (step === MAX_DEPTH || !at.$ref.startsWith("#/")) return {};
    const { $ref, ...beside } = at;
    const target = $ref
      .slice(2)
      .split("/")
      .reduce((value, key) => value?.[unescape(key)], document);
    // What stands beside a reference, such as a description, counts before what it leads to.
    at = { ...(target ?? {}), ...beside };
  }
  return at;
}

const unescape = (key) => decodeURIComponent(key).replaceAll("~1", "/").replaceAll("~0", "~");

/** The name of what a `$ref` leads to. */
export const refName = (schema) => schema?.$ref?.split("/").at(-1) ?? null;

/** A schema without references at its top: members of `allOf` merged, `null` taken out and told as `nullable`. */
export function simple(document, schema, depth = 0) {
  const { allOf, ...top } = resolve(document, schema);
  if (depth > MAX_DEPTH) return {};
  let result = top;
  for (const part of allOf ?? []) {
    const other = simple(document, part, depth + 1);
    result = {
      ...other,
      ...result,
      properties: { ...other.properties, ...result.properties },
      required: [...(other.required ?? []), ...(result.required ?? [])],
    };
  }
  let nullable = false;
  if (Array.isArray(result.type)) {
    nullable = result.type.includes("null");
    const types = result.type.filter((type) => type !== "null");
    result = { ...result, type: types.length === 1 ? types[0] : types };
  }
  const choices = result.oneOf ?? result.anyOf;
  if (choices) {
    const kept = choices.filter((choice) => resolve(document, choice).type !== "null");
    nullable ||= kept.length < choices.length;
    const { oneOf, anyOf, ...rest } = result;
    if (kept.length === 1) result = { ...simple(document, kept[0], depth + 1), ...rest };
    else result = { ...rest, oneOf: kept };
  }
  return nullable ? { ...result, nullable } : result;
}

/** The schema of a request's body, as JSON. */
export function bodySchema(document, path, method) {
  const content = resolve(document, document.paths?.[path]?.[method]?.requestBody).content ?? {};
  const media = content["application/json"] ?? Object.values(content)[0];
  return media?.schema ?? {};
}

/** The schema of a provider of one type: what its `adapterConfig` and its `type` can be is only what this type has. */
export function providerSchema(document, type) {
  const body = simple(document, bodySchema(document, "/admin/providers", "post"));
  const chosen = body.oneOf ? variantOf(document, body.oneOf, type) : body;
  const properties = { ...body.properties, ...chosen.properties };
  const adapter = simple(document, properties.adapterConfig);
  if (adapter.oneOf) {
    const wanted = type === "spawn-cli" ? "cli" : "baseUrl";
    const variants = adapter.oneOf.map((variant) => simple(document, variant));
    const fitting = variants.find((variant) => Object.hasOwn(variant.properties ?? {}, wanted));
    properties.adapterConfig = {
      ...(fitting ?? adapter),
      description: adapter.description ?? fitting?.description,
    };
  }
  // A CLI's credential is its runner's business.
  if (type === "spawn-cli") delete properties.credentials;
  return {
    ...chosen,
    type: "object",
    properties,
    required: [...(body.required ?? []), ...(chosen.required ?? [])],
  };
}

function variantOf(document, variants, type) {
  const all = variants.map((variant) => simple(document, variant));
  return all.find((variant) => choicesOf(document, variant.properties?.type ?? {})?.includes(type)) ?? all[0];
}

/** The values that an enumeration allows, or `null`. */
export function choicesOf(document, schema) {
  const { const: only, enum: values, oneOf } = simple(document, schema);
  if (only !== undefined) return [only];
  if (values) return values.filter((value) => value !== null);
  const parts = (oneOf ?? []).map((part) => choicesOf(document, part));
  return parts.length > 0 && parts.every(Boolean) ? parts.flat() : null;
}

/** How a value of a schema is entered: see `fields.js`. */
export function kindOf(document, schema) {
  const { type, format, properties, additionalProperties, items, writeOnly } = schema;
  if (choicesOf(document, schema)) return "choice";
  if (type === "object" || properties) {
    if (properties && Object.keys(properties).length > 0) return "object";
    const values = typeof additionalProperties === "object" ? simple(document, additionalProperties) : {};
    return values.type === "string" ? "pairs" : "json";
  }
  if (type === "array") {
    const each = simple(document, items);
    if (each.properties) return "list";
    return each.type === "string" ? "lines" : "json";
  }
  if (type === "boolean") return "flag";
  if (type === "integer" || type === "number") return "number";
  if (type === "string")
    return format === "date-time" ? "time" : writeOnly || format === "password" ? "secret" : "text";
  return "json";
}

/** `/models/0/dyadModelId` → `["models", "0", "dyadModelId"]`, as RFC 6901 has it. */
export function pointerParts(pointer) {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}
