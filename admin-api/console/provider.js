// One provider: how it stands, and what can be done about it.

import { RepeatKey } from "./api.js";
import { changedElsewhere, confirmDialog } from "./dialog.js";
import { announce, button, facts, h, table, timeElement } from "./dom.js";
import { schemaForm } from "./form.js";
import { ago, dateTime, duration, number, words } from "./format.js";
import { enabledTag, healthTag } from "./providers.js";
import { bodySchema } from "./schema.js";

export async function showProvider(page, slug) {
  const path = `/admin/providers/${encodeURIComponent(slug)}`;
  const { body: provider, etag } = await page.api.get(path);
  const document = page.mayChange ? await page.api.document() : null;
  const stored = provider.origin !== "given";
  const slot = h("div");
  return [
    h("p", null, h("a", { href: "#/providers" }, "Providers")),
    h("h1", { tabindex: -1 }, provider.name),
    h("p", null, enabledTag(provider), " ", healthTag(provider.health)),
    provider.health?.failure && failureBox(provider.health.failure, "Last check"),
    (provider.warnings ?? []).map((warning) =>
      h("p", { class: "warning" }, h("strong", null, "Warning: "), warning),
    ),
    !stored && h("p", { class: "warning" }, "Given on the command line or in a file: it is changed there."),
    page.mayChange && stored && actions(page, path, provider, etag, slot),
    slot,
    overview(provider),
    testSection(page, path, provider),
    modelsSection(provider),
    stored && credentialSection(page, path, provider, etag, document),
    rawSection(provider),
  ];
}

function actions(page, path, provider, etag, slot) {
  const guarded = (act) => async () => {
    try {
      await act();
    } catch (error) {
      throw changedElsewhere(error, () => page.reload());
    }
  };
  const toggle = guarded(async () => {
    await page.api.patch(path, { enabled: !provider.enabled }, { ifMatch: etag });
    await page.reload();
    announce(provider.enabled ? "Disabled" : "Enabled");
  });
  const remove = () =>
    confirmDialog({
      title: `Delete ${provider.name}?`,
      text: "Requests under way finish; new ones do not find it any more. Its credential is gone for good.",
      action: "Delete",
      dangerous: true,
      act: guarded(async () => {
        await page.api.remove(path, { ifMatch: etag });
        page.go("providers");
        announce(`${provider.name} is deleted`);
      }),
    });
  return h(
    "div",
    { class: "buttons" },
    h("a", { class: "button", href: `#/providers/${encodeURIComponent(provider.slug)}/edit` }, "Edit"),
    button(provider.enabled ? "Disable" : "Enable", toggle, { slot, id: "toggle" }),
    button("Delete …", remove, { slot, class: "dangerous" }),
  );
}

function overview(provider) {
  const config = provider.adapterConfig ?? {};
  return h(
    "section",
    { "aria-labelledby": "overview" },
    h("h2", { id: "overview" }, "Overview"),
    facts([
      ["Slug", h("code", null, provider.slug)],
      ["ID", provider.id && h("code", null, provider.id)],
      ["Type", provider.type],
      ["Address", h("code", null, config.baseUrl ?? `cli:${config.cli}`)],
      ["Description", provider.description || null],
      ["Rank", number(provider.rank)],
      [
        "Created",
        provider.createdAt && [
          timeElement(provider.createdAt, dateTime(provider.createdAt)),
          ` by ${provider.createdBy}`,
        ],
      ],
      ["Changed", provider.updatedAt && timeElement(provider.updatedAt, ago(provider.updatedAt))],
      ["Version", provider.version],
    ]),
  );
}

function failureBox(failure, what) {
  return h(
    "div",
    { class: "problem" },
    h(
      "p",
      null,
      h("strong", null, `${what}: ${failure.class}. `),
      failure.message,
      failure.status ? ` (status ${failure.status})` : "",
    ),
    failure.advice && h("p", null, failure.advice),
  );
}

function testSection(page, path, provider) {
  const result = h(
    "div",
    { class: "result", role: "status" },
    provider.lastTest && testReport(provider.lastTest),
  );
  const slot = h("div");
  const model = h(
    "select",
    { id: "test-model" },
    h("option", { value: "" }, "the first that can chat"),
    provider.models.map(({ dyadModelId }) => h("option", { value: dyadModelId }, dyadModelId)),
  );
  const stream = h("input", { type: "checkbox", id: "test-stream", checked: true });
  const test = async () => {
    result.replaceChildren(h("p", null, "Testing …"));
    try {
      const request = { stream: stream.checked, ...(model.value && { model: model.value }) };
      const { body } = await page.api.post(`${path}/test`, request);
      result.replaceChildren(testReport(body));
    } catch (error) {
      result.replaceChildren();
      throw error;
    }
  };
  const check = async () => {
    result.replaceChildren(h("p", null, "Checking …"));
    try {
      const { body } = await page.api.post(`${path}/test?dryRun=true`, {});
      result.replaceChildren(checkReport(body));
    } catch (error) {
      result.replaceChildren();
      throw error;
    }
  };
  return h(
    "section",
    { "aria-labelledby": "test" },
    h("h2", { id: "test" }, "Test"),
    page.mayChange && [
      h(
        "p",
        { class: "hint" },
        "A test is a real chat of a few tokens and costs as much. A check asks whether it can be reached and takes its credential; it costs nothing.",
      ),
      h(
        "div",
        { class: "filter" },
        h("div", { class: "field" }, h("label", { for: "test-model" }, "Model"), model),
        h("div", { class: "field check" }, stream, h("label", { for: "test-stream" }, "Streamed")),
        button("Test now", test, { slot, class: "primary" }),
        button("Check only", check, { slot }),
      ),
      slot,
    ],
    result,
    !page.mayChange && !provider.lastTest && h("p", null, "It was not tested yet."),
  );
}

/** What came of a test, with the time of each stage. */
export function testReport(report) {
  const stages = [
    ["Host looked up", report.timing?.resolvedMs],
    ["Connected", report.timing?.connectedMs],
    ["First byte", report.timing?.firstByteMs],
    ["First token", report.timing?.firstTokenMs],
    ["End", report.timing?.endMs],
  ].filter(([, ms]) => ms !== null && ms !== undefined);
  return h(
    "div",
    { class: report.ok ? "good" : "bad" },
    h(
      "p",
      null,
      h("strong", null, report.ok ? "✓ It works." : "✗ It failed."),
      report.model && [" ", h("code", null, report.model), report.stream ? ", streamed" : ", not streamed"],
      report.at && [", ", timeElement(report.at, ago(report.at))],
    ),
    report.failure && failureBox(report.failure, "Failure"),
    report.answer && h("p", null, "It said: ", h("q", null, report.answer)),
    report.usage &&
      h(
        "p",
        null,
        `${number(report.usage.promptTokens)} + ${number(report.usage.completionTokens)} tokens${report.usage.estimated ? ", estimated" : ""}`,
      ),
    stages.length > 0 &&
      table(
        "Time since the start",
        [
          { label: "Stage", cell: ([stage]) => stage },
          { label: "Reached after", numeric: true, cell: ([, ms]) => duration(ms) },
        ],
        stages,
      ),
  );
}

/** What came of a check. */
export function checkReport(report) {
  return h(
    "div",
    { class: report.ok ? "good" : "bad" },
    h(
      "p",
      null,
      h("strong", null, report.ok ? "✓ It can be reached." : "✗ It cannot be used."),
      ` ${duration(report.durationMs)}`,
      report.models !== null && report.models !== undefined ? `, ${number(report.models)} models` : "",
    ),
    report.failure && failureBox(report.failure, "Failure"),
  );
}

function modelsSection(provider) {
  const yes = (capabilities) =>
    Object.entries(capabilities ?? {})
      .filter(([, can]) => can)
      .map(([name]) => name)
      .join(", ");
  const discovered = provider.adapterConfig?.discoverModels;
  return h(
    "section",
    { "aria-labelledby": "models" },
    h("h2", { id: "models" }, "Models"),
    table(
      "Models of this provider",
      [
        { label: "Model", cell: (model) => h("code", null, model.dyadModelId) },
        {
          label: "Upstream's name",
          cell: (model) => h("code", null, model.adapterModelId ?? model.dyadModelId),
        },
        {
          label: "Answer, tokens",
          numeric: true,
          cell: (model) => (model.maxTokens ? number(model.maxTokens) : "–"),
        },
        {
          label: "Context, tokens",
          numeric: true,
          cell: (model) => (model.contextWindow ? number(model.contextWindow) : "–"),
        },
        { label: "Can", cell: (model) => yes(model.capabilities) || "not said" },
      ],
      provider.models,
      { empty: discovered ? "None are listed: they are asked of the upstream." : "None are listed." },
    ),
  );
}

function credentialSection(page, path, provider, etag, document) {
  const slots = Object.entries(provider.credentials ?? {}).filter(([, credential]) => credential?.set);
  const area = h("div");
  const [operation] = document ? [document.paths?.["/admin/providers/{id}/credentials"]?.post] : [];
  const open = () => area.replaceChildren(rotation().element);
  const repeat = new RepeatKey();
  const rotation = () => {
    const form = schemaForm({
      document,
      schema: bodySchema(document, "/admin/providers/{id}/credentials", "post"),
      label: "New credential",
      submitLabel: "Rotate",
      cancel: () => area.replaceChildren(),
      submit: async (value) => {
        try {
          await page.api.post(`${path}/credentials`, value, { ifMatch: etag, repeatKey: repeat.for(value) });
        } catch (error) {
          if (error.body?.test)
            error.element = h(
              "div",
              { class: "problem", role: "alert", tabindex: -1 },
              h("p", null, h("strong", null, "Nothing was changed. "), error.message),
              testReport(error.body.test),
            );
          throw changedElsewhere(error, () => page.reload());
        }
        await page.reload();
        announce("The credential is rotated");
      },
    });
    return form;
  };
  return h(
    "section",
    { "aria-labelledby": "credential" },
    h("h2", { id: "credential" }, "Credential"),
    slots.length === 0 &&
      h(
        "p",
        null,
        provider.type === "spawn-cli"
          ? "A CLI's credential is in the file of its runners' operator."
          : "None is set.",
      ),
    slots.map(([name, credential]) =>
      facts([
        [
          words(name),
          credential.source === "sealed"
            ? "sealed in the store"
            : h("code", null, credential.reference ?? credential.source),
        ],
        ["Version", credential.version],
        ["Fingerprint", credential.fingerprint && h("code", null, credential.fingerprint)],
        ["Set", credential.setAt && timeElement(credential.setAt, ago(credential.setAt))],
        [
          "Before",
          credential.previous && [
            `version ${credential.previous.version}, used until `,
            timeElement(credential.previous.until, dateTime(credential.previous.until)),
          ],
        ],
      ]),
    ),
    page.mayChange &&
      provider.type !== "spawn-cli" &&
      operation &&
      h(
        "div",
        { class: "buttons" },
        button("Rotate credential …", async () => {
          open();
          area.querySelector("input, select, textarea")?.focus();
        }),
      ),
    area,
  );
}

function rawSection(provider) {
  return h(
    "details",
    null,
    h("summary", null, "As JSON"),
    h("pre", { class: "code", tabindex: 0 }, JSON.stringify(provider, null, 2)),
  );
}
