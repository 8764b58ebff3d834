// The audit log: who changed what, what differs, and whether the log is whole.

import { differences } from "./diff.js";
import { button, h, timeElement } from "./dom.js";
import { dateTime, number } from "./format.js";
import { allPages } from "./pages.js";

const ACTIONS = ["create", "update", "delete", "revoke", "rotate", "rewrap", "import"];

export async function showAudit(page) {
  const list = h("div");
  const slot = h("div");
  const verdict = h("div", { class: "result", role: "status" });
  const fields = {
    from: h("input", { type: "datetime-local", id: "audit-from" }),
    until: h("input", { type: "datetime-local", id: "audit-until" }),
    actor: h("input", { type: "text", id: "audit-actor", autocomplete: "off", spellcheck: "false" }),
    object: h("input", {
      type: "text",
      id: "audit-object",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "provider/…",
    }),
    action: h(
      "select",
      { id: "audit-action" },
      h("option", { value: "" }, "any"),
      ACTIONS.map((value) => h("option", { value }, value)),
    ),
  };
  const time = (control) => (control.value ? new Date(control.value).toISOString() : "");
  const fill = async () => {
    const { from, until, actor, object, action } = fields;
    const query = {
      from: time(from),
      until: time(until),
      actor: actor.value.trim(),
      object: object.value.trim(),
      action: action.value,
    };
    list.replaceChildren(await allPages(page.api, "/admin/audit", query, entries));
  };
  const verify = async () => {
    verdict.replaceChildren(h("p", null, "Verifying …"));
    try {
      verdict.replaceChildren(verdictOf((await page.api.get("/admin/audit/verify")).body));
    } catch (error) {
      verdict.replaceChildren();
      throw error;
    }
  };
  const show = button("Show", fill, { slot, class: "primary" });
  show.type = "submit";
  const labels = { from: "From", until: "Until", actor: "Who", object: "What", action: "Action" };
  await fill();
  return [
    h("h1", { tabindex: -1 }, "Audit"),
    h(
      "form",
      { class: "filter", novalidate: true, submit: (event) => event.preventDefault() },
      Object.entries(fields).map(([name, control]) =>
        h("div", { class: "field" }, h("label", { for: control.id }, labels[name]), control),
      ),
      show,
      button("Verify the chain", verify, { slot }),
    ),
    slot,
    verdict,
    list,
  ];
}

function verdictOf(report) {
  if (!report.ok) {
    return h(
      "div",
      { class: "bad" },
      h(
        "p",
        null,
        h("strong", null, "✗ The log is not what was written. "),
        `Entry ${report.seq}: ${report.reason}`,
      ),
    );
  }
  return h(
    "div",
    { class: "good" },
    h("p", null, h("strong", null, "✓ The log is whole. "), `${number(report.entries)} entries.`),
    h(
      "p",
      null,
      "Its end is entry ",
      number(report.head.seq),
      ", ",
      h("code", null, report.head.hash),
      ". Noted elsewhere, it proves later that nothing up to here was changed.",
    ),
  );
}

function entries(list) {
  if (list.length === 0) return h("p", { class: "empty" }, "No change is recorded that fits.");
  return h(
    "ol",
    { class: "entries", reversed: true },
    list.map((entry) => h("li", { value: entry.seq }, entryDetails(entry))),
  );
}

/** One change; what differs is built when it is opened. */
function entryDetails(entry) {
  const body = h("div");
  const open = () => {
    if (details.open && body.childElementCount === 0) body.append(...entryBody(entry));
  };
  const details = h(
    "details",
    { toggle: open },
    h(
      "summary",
      null,
      h("strong", null, entry.action),
      " ",
      h("code", null, entry.object),
      " by ",
      entry.actor,
      ", ",
      timeElement(entry.at, dateTime(entry.at)),
    ),
    body,
  );
  return details;
}

function entryBody(entry) {
  const changes = differences(entry.before ?? undefined, entry.after ?? undefined);
  const side = (kind, sign, value) =>
    value !== undefined &&
    h(
      "div",
      { class: kind },
      h("span", { class: "sign" }, sign),
      " ",
      h("code", null, typeof value === "string" ? value : JSON.stringify(value)),
    );
  return [
    changes.length === 0
      ? h("p", null, "Nothing that is shown differs.")
      : h(
          "dl",
          { class: "diff" },
          changes.map(({ path, before, after }) => [
            h("dt", null, path),
            h("dd", null, side("was", "− before:", before), side("is", "+ after:", after)),
          ]),
        ),
    h(
      "p",
      { class: "hint" },
      "Entry ",
      entry.seq,
      entry.requestId ? [", request ", h("code", null, entry.requestId)] : "",
      ", hash ",
      h("code", null, entry.hash),
    ),
  ];
}
