// Adding and changing a provider, by a form made from the API's own description of its type.

import { RepeatKey } from "./api.js";
import { changedElsewhere } from "./dialog.js";
import { announce, h } from "./dom.js";
import { schemaForm } from "./form.js";
import { checkReport } from "./provider.js";
import { providerSchema } from "./schema.js";

const TYPES = [
  ["proxy", "Another server that speaks OpenAI's API: a vendor, a gateway"],
  ["local", "A server on this machine or network: Ollama, LM Studio, llama.cpp, vLLM"],
  ["spawn-cli", "A CLI that runners run in sandboxes: Claude Code, Gemini CLI, Codex"],
];

export async function showNewProvider(page, type) {
  if (!type) return chooseType();
  const document = await page.api.document();
  const repeat = new RepeatKey();
  const form = providerForm(page, {
    document,
    type,
    submitLabel: "Add",
    path: "/admin/providers",
    cancel: () => page.go("providers"),
    send: async (value, query) =>
      page.api.post("/admin/providers", value, { query, repeatKey: query ? null : repeat.for(value) }),
    done: (provider) => {
      page.go(`providers/${encodeURIComponent(provider.slug)}`);
      announce(`${provider.name} is added`);
    },
  });
  return [h("h1", { tabindex: -1 }, `Add a provider: ${type}`), form.element];
}

function chooseType() {
  const choices = TYPES.map(([type, what]) =>
    h("li", null, h("a", { href: `#/providers/new/${type}` }, h("code", null, type)), ` ${what}`),
  );
  return [
    h("h1", { tabindex: -1 }, "Add a provider"),
    h("p", null, "What is it?"),
    h("ul", { class: "choices" }, choices),
  ];
}

export async function showEditProvider(page, slug) {
  const path = `/admin/providers/${encodeURIComponent(slug)}`;
  const [document, { body: provider, etag }] = await Promise.all([page.api.document(), page.api.get(path)]);
  const back = () => page.go(`providers/${encodeURIComponent(slug)}`);
  const form = providerForm(page, {
    document,
    type: provider.type,
    value: { ...provider, credentials: undefined },
    fixed: ["slug"],
    submitLabel: "Save",
    cancel: back,
    send: (value, query) => page.api.put(path, value, { query, ifMatch: etag }),
    done: () => {
      back();
      announce("Saved");
    },
  });
  return [h("h1", { tabindex: -1 }, `Edit ${provider.name}`), form.element];
}

function providerForm(page, { document, type, value, fixed, submitLabel, send, done, cancel }) {
  const { properties, ...rest } = providerSchema(document, type);
  // What everybody has to say comes first.
  const { type: _, name, slug, adapterConfig, credentials, models, ...others } = properties;
  const entered = { name, slug, adapterConfig, ...(credentials && { credentials }), models, ...others };
  const whole = (of) => ({ type, ...of });
  const guarded = async (work) => {
    try {
      return await work();
    } catch (error) {
      throw changedElsewhere(error, () => page.reload());
    }
  };
  return schemaForm({
    document,
    schema: { ...rest, properties: entered, description: undefined },
    value,
    fixed,
    label: "Provider",
    submitLabel,
    cancel,
    submit: async (of) => done((await guarded(() => send(whole(of)))).body),
    others: [
      {
        label: "Check without saving",
        act: async (of, result) => {
          const { body } = await guarded(() => send(whole(of), { dryRun: true }));
          const warnings = (body.warnings ?? []).map((warning) =>
            h("p", { class: "warning" }, h("strong", null, "Warning: "), warning),
          );
          result.replaceChildren(
            h("p", null, "✓ It is valid. Nothing was saved."),
            ...warnings,
            body.reachable ? checkReport(body.reachable) : "",
          );
        },
      },
    ],
  });
}
