// Schemas in words, and values as examples of them, for the readable page of the API's document. Nothing here touches
// the page.

import { choicesOf, refName, resolve, simple } from "./schema.js";

const MAX_DEPTH = 8;

/** A type as people write it: `string`, `integer or null`, `array of Model`, `"a" | "b"`. */
export function typeName(document, schema) {
  const name = refName(schema);
  const plain = simple(document, schema);
  const choices = choicesOf(document, plain);
  let text;
  if (choices) text = choices.map((choice) => JSON.stringify(choice)).join(" | ");
  else if (plain.oneOf) text = plain.oneOf.map((variant) => typeName(document, variant)).join(" or ");
  else if (plain.type === "array") text = `array of ${typeName(document, plain.items)}`;
  else if (name) text = name;
  else text = [plain.type ?? "any"].flat().join(" or ") + (plain.format ? ` (${plain.format})` : "");
  return plain.nullable ? `${text} or null` : text;
}

/** What bounds a value, in words. */
export function bounds(schema) {
  const told = [
    ["default", "default"],
    ["minimum", "at least"],
    ["maximum", "at most"],
    ["minLength", "at least … characters"],
    ["maxLength", "at most … characters"],
    ["minItems", "at least … entries"],
    ["maxItems", "at most … entries"],
    ["pattern", "matches"],
  ];
  return told
    .filter(([name]) => schema[name] !== undefined && schema[name] !== null)
    .map(([name, text]) => {
      const value = typeof schema[name] === "object" ? JSON.stringify(schema[name]) : String(schema[name]);
      return text.includes("…") ? text.replace("…", value) : `${text} ${value}`;
    });
}

/** An example: the schema's own, else one made of its members. */
export function exampleOf(document, schema, depth = 0) {
  const plain = simple(document, schema);
  const own = plain.example ?? plain.examples?.[0] ?? plain.default;
  if (own !== undefined && own !== null) return own;
  if (depth > MAX_DEPTH) return null;
  const choices = choicesOf(document, plain);
  if (choices) return choices[0];
  if (plain.oneOf) return exampleOf(document, plain.oneOf[0], depth + 1);
  if (plain.properties) {
    const entries = Object.entries(plain.properties);
    return Object.fromEntries(
      entries.map(([name, property]) => [name, exampleOf(document, property, depth + 1)]),
    );
  }
  if (plain.type === "array") return [exampleOf(document, plain.items, depth + 1)];
  if (plain.nullable) return null;
  return (
    { object: {}, integer: 1, number: 1, boolean: true, string: textExample(plain.format) }[plain.type] ??
    null
  );
}

function textExample(format) {
  return (
    { "date-time": "2026-11-21T10:52:07.123Z", date: "2026-11-21", uri: "https://api.example.com/v1" }[
      format
    ] ?? "…"
  );
}

const METHODS = ["get", "post", "put", "patch", "delete"];

/** All operations by their first tag, in the order of the document: `[[tag, [{method, path, operation}]]]`. */
export function byTag(document) {
  const tags = new Map((document.tags ?? []).map(({ name }) => [name, []]));
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = item[method].tags?.[0] ?? "other";
      if (!tags.has(tag)) tags.set(tag, []);
      const parameters = [...(item.parameters ?? []), ...(item[method].parameters ?? [])];
      tags.get(tag).push({
        method,
        path,
        operation: { ...item[method], parameters: parameters.map((each) => resolve(document, each)) },
      });
    }
  }
  return [...tags].filter(([, operations]) => operations.length > 0);
}
