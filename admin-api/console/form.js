// A form over fields: it sends what was entered, and shows each violation that the API finds beside its field.

import { announce, button, h, problem } from "./dom.js";
import { makeField } from "./fields.js";
import { pointerParts } from "./schema.js";

/**
 * A form for a schema.
 *
 * `submit(value)` sends it; when it throws an error with `details`, they are shown, and what was entered stays.
 * `others` are further buttons, `{label, act(value, result)}`, that put what they have to say into `result`.
 */
export function schemaForm({
  document,
  schema,
  value,
  fixed,
  label,
  submitLabel,
  submit,
  others = [],
  cancel,
}) {
  const root = makeField({ document, fixed }, "value", schema, value, { required: true, label });
  const summary = h("div");
  const result = h("div", { class: "result", role: "status" });

  const attempt = async (act) => {
    root.clear();
    summary.replaceChildren();
    result.replaceChildren();
    try {
      await act();
    } catch (error) {
      if (error.name === "AbortError") return;
      summary.replaceChildren(error.element ?? violations(root, error));
      summary.firstElementChild.focus();
    }
  };
  const send = button(submitLabel, () => attempt(() => submit(root.read())));
  send.type = "submit";
  send.classList.add("primary");
  const form = h(
    "form",
    // The API judges what was entered, not the browser; and Enter in a field presses the first button.
    { novalidate: true, submit: (event) => event.preventDefault(), autocomplete: "off" },
    summary,
    root.element,
    h(
      "div",
      { class: "buttons" },
      send,
      others.map(({ label: text, act }) => button(text, () => attempt(() => act(root.read(), result)))),
      cancel && h("button", { type: "button", class: "quiet", click: cancel }, "Cancel"),
    ),
    result,
  );
  return { element: form, root, attempt };
}

/** The field that a pointer leads to, or the closest around it; `null` for the whole. */
export function fieldAt(root, pointer) {
  let at = root;
  for (const part of pointerParts(pointer)) {
    const child = at.child(part);
    if (!child) break;
    at = child;
  }
  return at === root ? null : at;
}

/** Marks the fields that violations name, and lists all of them with links to their fields. */
function violations(root, error) {
  if (!error.details || error.details.length === 0) return problem(error);
  const entries = error.details.map(({ pointer, message }) => {
    const field = fieldAt(root, pointer ?? "");
    field?.mark(message);
    if (!field) return h("li", null, h("code", null, pointer || "/"), ` ${message}`);
    const jump = (event) => {
      event.preventDefault();
      field.focus();
    };
    return h("li", null, h("a", { href: "#", click: jump }, field.label), ` ${message}`);
  });
  const count = entries.length === 1 ? "1 thing is" : `${entries.length} things are`;
  announce(`${count} not right`);
  return h(
    "div",
    { class: "problem", role: "alert", tabindex: -1 },
    h("p", null, h("strong", null, `${count} not right. `), error.message),
    h("ul", null, entries),
  );
}
