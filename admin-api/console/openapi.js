// The readable page of the API's document.

import { h, problem, prose, table } from "./dom.js";
import { bounds, byTag, exampleOf, typeName } from "./example.js";
import { refName, resolve, simple } from "./schema.js";

const TIMEOUT_MS = 20_000;
const main = document.getElementById("main");

async function show() {
  const response = await fetch("/openapi.json", {
    signal: AbortSignal.timeout(TIMEOUT_MS),
    credentials: "omit",
  });
  if (!response.ok) throw new Error(`The API's document was not answered: status ${response.status}.`);
  const description = await response.json();
  main.replaceChildren(...page(description));
  // The browser looked for what its address names before there was anything.
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

function page(description) {
  const tags = byTag(description);
  const tagText = new Map((description.tags ?? []).map(({ name, description: text }) => [name, text]));
  const schemas = Object.entries(description.components?.schemas ?? {});
  return [
    h("h1", null, description.info?.title ?? "API"),
    paragraphs(description.info?.description),
    h("p", { class: "hint" }, `Version ${description.info?.version}, OpenAPI ${description.openapi}`),
    h(
      "nav",
      { "aria-label": "Contents", class: "contents" },
      h("ul", null, [
        ...tags.map(([tag]) => h("li", null, h("a", { href: `#tag-${tag}` }, tag))),
        h("li", null, h("a", { href: "#schemas" }, "Schemas")),
      ]),
    ),
    tags.map(([tag, operations]) =>
      h(
        "section",
        { "aria-labelledby": `tag-${tag}` },
        h("h2", { id: `tag-${tag}` }, tag),
        paragraphs(tagText.get(tag)),
        operations.map((each) => operationDetails(description, each)),
      ),
    ),
    h(
      "section",
      { "aria-labelledby": "schemas" },
      h("h2", { id: "schemas" }, "Schemas"),
      schemas.map(([name, schema]) =>
        lazy(
          h("code", null, name),
          () => [paragraphs(schema.description), schemaTable(description, schema)],
          `schema-${name}`,
        ),
      ),
    ),
  ]
    .flat(Infinity)
    .filter(Boolean);
}

/** Details whose content is made when they are opened: a document has thousands of members. */
function lazy(summary, make, id) {
  const body = h("div");
  const open = () => {
    if (details.open && body.childElementCount === 0) body.append(...make().flat(Infinity).filter(Boolean));
  };
  const details = h("details", { id, toggle: open }, h("summary", null, summary), body);
  return details;
}

function operationDetails(description, { method, path, operation }) {
  const summary = [
    h("span", { class: `method ${method}` }, method.toUpperCase()),
    " ",
    h("code", null, path),
    operation.summary && ` – ${operation.summary}`,
    operation["x-role"] && [" ", h("span", { class: "tag" }, operation["x-role"])],
  ];
  const responses = Object.entries(operation.responses ?? {});
  return lazy(
    summary,
    () => [
      paragraphs(operation.description),
      operation.parameters.length > 0 && [
        table(
          `Parameters of ${method.toUpperCase()} ${path}`,
          [
            {
              label: "Name",
              cell: (parameter) => [h("code", null, parameter.name), parameter.required && " (required)"],
            },
            { label: "In", cell: (parameter) => parameter.in },
            { label: "Type", cell: (parameter) => typeName(description, parameter.schema) },
            {
              label: "Meaning",
              cell: (parameter) => [
                prose(parameter.description),
                " ",
                bounds(simple(description, parameter.schema)).join(", "),
              ],
            },
          ],
          operation.parameters,
        ),
      ],
      operation.requestBody && [
        h("h3", null, "Request"),
        contentOf(description, resolve(description, operation.requestBody)),
      ],
      h("h3", null, "Answers"),
      responses.map(([status, response]) => {
        const resolved = resolve(description, response);
        return h(
          "div",
          { class: "answer" },
          h("p", null, h("strong", null, status), " ", resolved.description),
          contentOf(description, resolved),
        );
      }),
    ],
    operation.operationId ? `operation-${operation.operationId}` : null,
  );
}

function contentOf(description, { content }) {
  return Object.entries(content ?? {}).map(([type, media]) => {
    const example =
      media.example ?? Object.values(media.examples ?? {})[0]?.value ?? exampleOf(description, media.schema);
    return [
      h("p", null, h("code", null, type), " ", typeName(description, media.schema ?? {})),
      media.schema && schemaTable(description, media.schema),
      type.includes("json") &&
        example !== null &&
        h(
          "details",
          null,
          h("summary", null, "Example"),
          h("pre", { class: "code", tabindex: 0 }, JSON.stringify(example, null, 2)),
        ),
    ];
  });
}

/** The members of an object; its variants one after another. */
function schemaTable(description, schema) {
  const plain = simple(description, schema);
  if (plain.type === "array") return schemaTable(description, plain.items ?? {});
  const variants = (plain.oneOf ?? []).map((variant) => [
    h("p", null, "Either ", typeLink(description, variant)),
    refName(variant) ? null : schemaTable(description, variant),
  ]);
  const members = Object.entries(plain.properties ?? {});
  if (members.length === 0) return variants;
  const rows = members.map(([name, member]) => ({
    name,
    member,
    plain: simple(description, member),
    required: plain.required?.includes(name),
  }));
  return [
    table(
      `Members of ${refName(schema) ?? plain.title ?? "the object"}`,
      [
        { label: "Member", cell: ({ name, required }) => [h("code", null, name), required && " (required)"] },
        { label: "Type", cell: ({ member }) => typeLink(description, member) },
        { label: "Meaning", cell: ({ plain: of }) => [prose(of.description), " ", bounds(of).join(", ")] },
      ],
      rows,
    ),
    variants,
  ];
}

/** The type, with a link where it is described by itself. */
function typeLink(description, schema) {
  const named = [schema, simple(description, schema).items, ...(schema.oneOf ?? [])]
    .map(refName)
    .find(Boolean);
  const text = typeName(description, schema);
  if (!named) return text;
  const open = () => {
    const target = document.getElementById(`schema-${named}`);
    if (target) target.open = true;
  };
  return h("a", { href: `#schema-${named}`, click: open }, text);
}

/** Text as the API's authors wrote it: an empty line begins a paragraph. */
function paragraphs(text) {
  return (text ?? "")
    .split(/\n\s*\n/)
    .filter(Boolean)
    .map((paragraph) => h("p", null, prose(paragraph)));
}

show().catch((error) => main.replaceChildren(h("h1", null, "API"), problem(error)));
