// API keys: those that there are, a new one, and what can be done about one.

import { RepeatKey } from "./api.js";
import { changedElsewhere, confirmDialog, secretDialog } from "./dialog.js";
import { mergePatch } from "./diff.js";
import { announce, button, facts, h, table, timeElement } from "./dom.js";
import { schemaForm } from "./form.js";
import { ago, dateTime, limits } from "./format.js";
import { allPages } from "./pages.js";
import { bodySchema, simple } from "./schema.js";

const stateTag = (key) => h("span", { class: `tag ${key.state}` }, key.state);
const moment = (iso, text = ago) => iso && timeElement(iso, text(iso));
const isUsable = (key) => key.state === "active";

export async function showKeys(page) {
  const list = h("div");
  const state = h(
    "select",
    { id: "key-state", change: filter },
    h("option", { value: "" }, "any"),
    ["active", "expired", "revoked"].map((value) => h("option", { value }, value)),
  );
  const owner = h("input", { id: "key-owner", type: "text", change: filter });

  async function fill() {
    list.replaceChildren(
      await allPages(page.api, "/admin/keys", { state: state.value, owner: owner.value.trim() }, rows),
    );
  }

  async function filter() {
    await fill();
    announce("The list is filtered");
  }

  await fill();
  return [
    h("h1", { tabindex: -1 }, "API keys"),
    page.mayChange && h("p", null, h("a", { href: "#/keys/new", class: "button primary" }, "Create a key")),
    h(
      "form",
      { class: "filter", submit: (event) => event.preventDefault() },
      h("div", { class: "field" }, h("label", { for: "key-state" }, "State"), state),
      h("div", { class: "field" }, h("label", { for: "key-owner" }, "Owner"), owner),
    ),
    list,
  ];
}

function rows(keys) {
  return table(
    "API keys",
    [
      {
        label: "Label",
        cell: (key) => [
          h("a", { href: `#/keys/${encodeURIComponent(key.id)}` }, key.label || key.id),
          key.label && [" ", h("code", null, key.id)],
        ],
      },
      { label: "Owner", cell: (key) => key.owner || "–" },
      { label: "State", cell: stateTag },
      { label: "Expires", cell: (key) => moment(key.expiresAt) ?? "never" },
      { label: "Last used", cell: (key) => moment(key.lastUsedAt) ?? "never" },
      { label: "Models", cell: (key) => modelsOf(key) },
      { label: "Limits", cell: (key) => limits(key.limits).join(", ") || "none" },
    ],
    keys,
    { empty: "There are no keys." },
  );
}

const modelsOf = (key) => (key.allowedModels ? key.allowedModels.join(", ") || "none" : "all");

const SHOWN_ONCE =
  "This is the only time that it is shown. Whoever has it can chat at your expense: keep it as you keep a password.";

export async function showNewKey(page) {
  const document = await page.api.document();
  const repeat = new RepeatKey();
  const form = schemaForm({
    document,
    schema: bodySchema(document, "/admin/keys", "post"),
    label: "API key",
    submitLabel: "Create",
    cancel: () => page.go("keys"),
    submit: async (value) => {
      const { body } = await page.api.post("/admin/keys", value, { repeatKey: repeat.for(value) });
      await secretDialog("The new key", body.key, SHOWN_ONCE);
      page.go(`keys/${encodeURIComponent(body.id)}`);
    },
  });
  return [h("h1", { tabindex: -1 }, "Create a key"), form.element];
}

export async function showKey(page, id) {
  const path = `/admin/keys/${encodeURIComponent(id)}`;
  const { body: key, etag } = await page.api.get(path);
  const document = page.mayChange ? await page.api.document() : null;
  const area = h("div");
  const slot = h("div");
  return [
    h("p", null, h("a", { href: "#/keys" }, "API keys")),
    h("h1", { tabindex: -1 }, key.label || key.id),
    h("p", null, stateTag(key)),
    document && isUsable(key) && actions(page, document, path, key, etag, slot, area),
    slot,
    area,
    facts([
      ["ID", h("code", null, key.id)],
      ["Owner", key.owner || "not set"],
      ["Created", moment(key.createdAt, dateTime)],
      ["Expires", moment(key.expiresAt, dateTime) ?? "never"],
      ["Revoked", moment(key.revokedAt, dateTime)],
      ["Last used", moment(key.lastUsedAt) ?? "never"],
      [
        "Secret before",
        key.previousSecretUntil && ["accepted until ", moment(key.previousSecretUntil, dateTime)],
      ],
      ["Models", modelsOf(key)],
      ["Limits", limits(key.limits).join(", ") || "none"],
      ["Version", key.version],
    ]),
    h(
      "p",
      null,
      h("a", { href: "#/usage" }, "Usage"),
      " and ",
      h("a", { href: "#/audit" }, "audit"),
      " tell what it was used for and who changed it.",
    ),
  ];
}

function actions(page, document, path, key, etag, slot, area) {
  const guarded = async (work) => {
    try {
      return await work();
    } catch (error) {
      throw changedElsewhere(error, () => page.reload());
    }
  };
  const put = (form) => {
    area.replaceChildren(form.element);
    area.querySelector("input, select, textarea")?.focus();
  };
  const cancel = () => area.replaceChildren();
  const edit = () => {
    const schema = bodySchema(document, "/admin/keys/{id}", "patch");
    const writable = Object.keys(simple(document, schema).properties ?? {});
    const current = Object.fromEntries(writable.map((name) => [name, key[name]]));
    put(
      schemaForm({
        document,
        schema,
        value: current,
        label: "Change the key",
        submitLabel: "Save",
        cancel,
        submit: async (value) => {
          await guarded(() => page.api.patch(path, mergePatch(current, value), { ifMatch: etag }));
          await page.reload();
          announce("Saved");
        },
      }),
    );
  };
  const repeat = new RepeatKey();
  const rotate = () =>
    put(
      schemaForm({
        document,
        schema: bodySchema(document, "/admin/keys/{id}/rotate", "post"),
        label: "New secret for this key",
        submitLabel: "Rotate",
        cancel,
        submit: async (value) => {
          const { body } = await guarded(() =>
            page.api.post(`${path}/rotate`, value, { ifMatch: etag, repeatKey: repeat.for(value) }),
          );
          await secretDialog("The new secret", body.key, SHOWN_ONCE);
          await page.reload();
        },
      }),
    );
  const revoke = () =>
    confirmDialog({
      title: `Revoke ${key.label || key.id}?`,
      text: "It is refused by every gateway within seconds, and cannot be made good again.",
      action: "Revoke",
      dangerous: true,
      act: () =>
        guarded(async () => {
          await page.api.remove(path, { ifMatch: etag });
          await page.reload();
          announce("Revoked");
        }),
    });
  return h(
    "div",
    { class: "buttons" },
    button("Change …", async () => edit(), { slot }),
    button("Rotate …", async () => rotate(), { slot }),
    button("Revoke …", revoke, { slot, class: "dangerous" }),
  );
}
