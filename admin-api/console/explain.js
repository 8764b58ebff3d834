// What would become of a chat request, without making it.

import { button, facts, h, table } from "./dom.js";
import { number, words } from "./format.js";

const EXAMPLE = { model: "", messages: [{ role: "user", content: "Hello" }] };

export async function showExplain(page) {
  const { body: keys } = await page.api.get("/admin/keys", { state: "active", limit: 100 });
  const body = h(
    "textarea",
    { id: "explain-body", rows: 11, class: "code", spellcheck: "false", "aria-describedby": "explain-hint" },
    JSON.stringify(EXAMPLE, null, 2),
  );
  const key = h(
    "select",
    { id: "explain-key" },
    h("option", { value: "" }, "one without limits"),
    keys.data.map(({ id, label }) => h("option", { value: id }, label ? `${label} (${id})` : id)),
  );
  const slot = h("div");
  const result = h("div", { class: "result", role: "status" });
  const explain = async () => {
    result.replaceChildren();
    let request;
    try {
      request = JSON.parse(body.value);
    } catch (error) {
      throw new Error(`The request is not JSON: ${error.message}`);
    }
    const { body: explanation } = await page.api.post("/admin/explain", {
      request,
      ...(key.value && { keyId: key.value }),
    });
    result.replaceChildren(...answer(explanation));
  };
  const submit = button("Explain", explain, { slot, class: "primary" });
  submit.type = "submit";
  return [
    h("h1", { tabindex: -1 }, "Explain"),
    h(
      "p",
      null,
      "What the gateway would do with a chat request: who may answer, in which order, and what would be changed. Nobody is called.",
    ),
    h(
      "form",
      { novalidate: true, submit: (event) => event.preventDefault() },
      h("div", { class: "field" }, h("label", { for: "explain-key" }, "As the key"), key),
      h(
        "div",
        { class: "field" },
        h("label", { for: "explain-body" }, "Request"),
        h("p", { class: "hint", id: "explain-hint" }, "As a client sends it to /v1/chat/completions."),
        body,
      ),
      h("div", { class: "buttons" }, submit),
    ),
    slot,
    result,
  ];
}

function answer(explanation) {
  const { refused, targets, limits } = explanation;
  return [
    h("h2", null, "Decision"),
    refused
      ? h(
          "div",
          { class: "bad" },
          h(
            "p",
            null,
            h("strong", null, `✗ Refused with ${refused.status} `),
            h("code", null, refused.code),
            ` ${refused.message}`,
          ),
        )
      : h(
          "div",
          { class: "good" },
          h(
            "p",
            null,
            h(
              "strong",
              null,
              targets.some((target) => !target.passedOver)
                ? "✓ It would be answered."
                : "✗ Nobody would answer.",
            ),
          ),
        ),
    facts([
      [
        "Model",
        explanation.model === null || explanation.model === undefined
          ? "none"
          : h("code", null, explanation.model),
      ],
      ["Streamed", explanation.stream ? "yes" : "no"],
      [
        "Tokens set aside",
        `${number(explanation.estimatedPromptTokens)} for the prompt, ${number(explanation.estimatedCompletionTokens)} for the answer`,
      ],
    ]),
    limits.length > 0 &&
      table(
        "Limits of the key",
        [
          { label: "Limit", cell: (limit) => words(limit.name) },
          { label: "Of", numeric: true, cell: (limit) => number(limit.limit) },
          {
            label: "Left",
            numeric: true,
            cell: (limit) =>
              limit.remaining === null || limit.remaining === undefined
                ? "not known"
                : number(limit.remaining),
          },
        ],
        limits,
      ),
    table(
      "Who would be asked, in order",
      [
        {
          label: "Provider",
          cell: (target) =>
            h("a", { href: `#/providers/${encodeURIComponent(target.provider)}` }, target.provider),
        },
        { label: "Type", cell: (target) => target.kind },
        { label: "Upstream's model", cell: (target) => h("code", null, target.upstreamModel) },
        { label: "Address", cell: (target) => h("code", null, target.address) },
        {
          label: "Changed",
          cell: (target) =>
            target.rewritten.length > 0
              ? h(
                  "ul",
                  null,
                  target.rewritten.map((change) => h("li", null, change)),
                )
              : "nothing",
        },
        { label: "Passed over", cell: (target) => target.passedOver ?? "no" },
      ],
      targets,
      { empty: "Nobody has this model." },
    ),
  ].filter(Boolean);
}
