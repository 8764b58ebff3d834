// Form fields made from a JSON Schema, one per kind of value. A field is
//   {element, read(), child(part), mark(message), clear(), focus(), label}
// where `read` gives the value, `undefined` if nothing was entered. What was entered is not judged here: the API does
// that, and says where.

import { h, newId, prose } from "./dom.js";
import { words } from "./format.js";
import { choicesOf, kindOf, simple } from "./schema.js";

/** The field for a schema. `context` is `{document, fixed}`; `fixed` has the names that cannot be changed. */
export function makeField(context, name, schema, value, { required = false, label = words(name) } = {}) {
  const plain = simple(context.document, schema);
  const kind = kindOf(context.document, plain);
  const field = { context, name, schema: plain, value, required, label };
  return BUILDERS[kind](field);
}

const BUILDERS = { object, list, lines, pairs, choice, flag, number, time, secret, text, json };

/** A label, a control, a hint and room for an error. */
function single(
  { name, schema, required, label, context },
  control,
  read,
  { hint = schema.description } = {},
) {
  const id = newId(name);
  const [hintId, errorId] = [`${id}-hint`, `${id}-error`];
  const error = h("p", { class: "error", id: errorId, hidden: true });
  control.id = id;
  control.setAttribute("name", name);
  const describe = (hasError) => {
    const by = [hasError && errorId, hint && hintId].filter(Boolean).join(" ");
    if (by) control.setAttribute("aria-describedby", by);
    else control.removeAttribute("aria-describedby");
  };
  describe(false);
  if (required) control.setAttribute("aria-required", "true");
  if (context.fixed?.includes(name)) {
    control.setAttribute("readonly", "");
    control.disabled = control.tagName === "SELECT";
  }
  return {
    label,
    element: h(
      "div",
      { class: "field" },
      h("label", { for: id }, label, required && h("span", { class: "required" }, " (required)")),
      hint && h("p", { class: "hint", id: hintId }, prose(hint)),
      error,
      control,
    ),
    read,
    child: () => null,
    mark(message) {
      error.replaceChildren(...(error.hidden ? [] : [...error.childNodes, " "]), message);
      error.hidden = false;
      unfold(error);
      control.setAttribute("aria-invalid", "true");
      describe(true);
    },
    clear() {
      error.hidden = true;
      error.replaceChildren();
      control.removeAttribute("aria-invalid");
      describe(false);
    },
    focus() {
      unfold(control);
      control.focus();
    },
  };
}

/** Opens what an element is folded into. */
function unfold(element) {
  for (let at = element.closest("details"); at; at = at.parentElement.closest("details")) at.open = true;
}

/** Fields that belong together. */
function group({ schema, label }, { body, children, child, read, legend = label }) {
  const error = h("p", { class: "error", id: newId("group-error"), hidden: true });
  const element = h(
    "fieldset",
    { tabindex: -1, "aria-describedby": error.id },
    h("legend", null, legend),
    schema.description && h("p", { class: "hint" }, prose(schema.description)),
    error,
    body,
  );
  return {
    label,
    element,
    read,
    child,
    mark(message) {
      error.replaceChildren(...(error.hidden ? [] : [...error.childNodes, " "]), message);
      error.hidden = false;
      unfold(error);
    },
    clear() {
      error.hidden = true;
      error.replaceChildren();
      children().forEach((field) => field.clear());
    },
    focus() {
      unfold(element);
      element.focus();
    },
  };
}

function object(field) {
  const { context, schema, value, required } = field;
  const isRequired = (name) => schema.required?.includes(name) ?? false;
  const entries = Object.entries(schema.properties)
    .filter(([, property]) => !property.readOnly)
    // What has to be said comes first; all else as the document has it.
    .sort(([a], [b]) => isRequired(b) - isRequired(a));
  const fields = new Map(
    entries.map(([name, property]) => [
      name,
      makeField(context, name, property, value?.[name], { required: isRequired(name) }),
    ]),
  );
  const read = () => {
    const given = [...fields]
      .map(([name, each]) => [name, each.read()])
      .filter(([, each]) => each !== undefined);
    return given.length > 0 || required ? Object.fromEntries(given) : undefined;
  };
  const elements = [...fields.values()].map((each) => each.element);
  // What need not be given and is not set stays folded, unless it is one member alone: most forms are short then.
  const folds = !required && elements.length > 1;
  const summary = h("summary", null, `Set ${field.label.toLowerCase()}`);
  const body = folds ? h("details", { class: "fold", open: Boolean(value) }, summary, elements) : elements;
  return group(field, {
    body,
    children: () => [...fields.values()],
    child: (part) => fields.get(part) ?? null,
    read,
  });
}

/** Several objects, such as models. */
function list(field) {
  const { context, name, schema, value, label } = field;
  const items = [];
  const rows = h("div", { class: "rows" });
  const one = label.replace(/s$/, "").toLowerCase();
  const number = () =>
    items.forEach((item, index) => {
      item.title.replaceChildren(`${one} ${index + 1}`);
      item.remove.replaceChildren(`Remove ${one} ${index + 1}`);
    });
  const add = (given) => {
    const schemaOfOne = { ...simple(context.document, schema.items), description: undefined };
    const item = makeField(context, name, schemaOfOne, given, { required: true, label: one });
    const remove = () => {
      items.splice(items.indexOf(item), 1);
      item.element.remove();
      number();
      addButton.focus();
    };
    item.title = item.element.querySelector("legend");
    item.remove = h("button", { type: "button", class: "quiet", click: remove });
    item.element.append(item.remove);
    items.push(item);
    rows.append(item.element);
    number();
    return item;
  };
  const addButton = h(
    "button",
    {
      type: "button",
      class: "quiet",
      click: () => add(undefined).element.querySelector("input, select, textarea").focus(),
    },
    `Add a ${one}`,
  );
  (value ?? []).forEach(add);
  return group(field, {
    body: [rows, addButton],
    children: () => items,
    child: (part) => items[part] ?? null,
    read: () => (items.length > 0 ? items.map((item) => item.read()) : undefined),
  });
}

/** Several texts, one in each line. */
function lines(field) {
  const control = h("textarea", { rows: 3, spellcheck: "false" }, (field.value ?? []).join("\n"));
  const read = () => {
    const given = control.value
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean);
    return given.length > 0 ? given : undefined;
  };
  return single(field, control, read, { hint: join(field.schema.description, "One in each line.") });
}

/** Names with values, `name=value` in each line. */
function pairs(field) {
  const given = Object.entries(field.value ?? {}).map(([name, value]) => `${name}=${value}`);
  const control = h("textarea", { rows: 3, spellcheck: "false" }, given.join("\n"));
  const read = () => {
    const entered = control.value.split("\n").filter((line) => line.trim() !== "");
    if (entered.length === 0) return undefined;
    const split = (line) => (line.includes("=") ? line.indexOf("=") : line.length);
    return Object.fromEntries(
      entered.map((line) => [line.slice(0, split(line)).trim(), line.slice(split(line) + 1).trim()]),
    );
  };
  return single(field, control, read, {
    hint: join(field.schema.description, "name=value, one in each line."),
  });
}

function select(field, choices) {
  const none = !field.required || field.value === undefined;
  const control = h(
    "select",
    null,
    none && h("option", { value: "" }, "not set"),
    choices.map(([value, text]) => h("option", { value }, text)),
  );
  control.value = field.value === undefined || field.value === null ? "" : String(field.value);
  return control;
}

function choice(field) {
  const choices = choicesOf(field.context.document, field.schema);
  const control = select(
    field,
    choices.map((value) => [String(value), String(value)]),
  );
  return single(field, control, () => choices.find((value) => String(value) === control.value));
}

function flag(field) {
  if (typeof field.schema.default !== "boolean") {
    const control = select(field, [
      ["true", "yes"],
      ["false", "no"],
    ]);
    return single(field, control, () => ({ true: true, false: false })[control.value]);
  }
  const control = h("input", { type: "checkbox", checked: field.value ?? field.schema.default });
  return single(field, control, () => control.checked);
}

/** What is no number is sent as it is, so that the API says what it takes. */
function number(field) {
  const control = input(field, { inputmode: "numeric" });
  const read = () => {
    const text = control.value.trim();
    if (text === "") return undefined;
    return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
  };
  return single(field, control, read, {
    hint: join(field.schema.description, unless(field.schema.default, "if not set")),
  });
}

/** Entered in the browser's time zone, sent in UTC. */
function time(field) {
  const at = field.value ? new Date(field.value) : null;
  const local = at && new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  const control = h("input", { type: "datetime-local", value: local });
  const read = () => {
    // To the minute, as it is shown: what was not touched is what it was.
    if (control.value === local) return field.value;
    return control.value ? new Date(control.value).toISOString() : undefined;
  };
  return single(field, control, read, { hint: join(field.schema.description, "In your own time zone.") });
}

function secret(field) {
  const control = h("input", { type: "password", autocomplete: "off", spellcheck: "false" });
  return single(field, control, () => control.value || undefined);
}

function text(field) {
  const { name, schema, value } = field;
  const isLong = name === "description";
  const control = isLong ? h("textarea", { rows: 2 }, value) : input(field, {});
  const example = schema.examples?.[0] ?? schema.example;
  const hint = join(
    schema.description,
    unless(schema.default, "if not set"),
    example && `For example: ${example}`,
  );
  return single(field, control, () => control.value || undefined, { hint });
}

/** Whatever has no form of its own. What is no JSON is sent as text, so that the API says what it takes. */
function json(field) {
  const given = field.value === undefined || field.value === null ? "" : JSON.stringify(field.value, null, 2);
  const control = h("textarea", { rows: 4, spellcheck: "false", class: "code" }, given);
  const read = () => {
    if (control.value.trim() === "") return undefined;
    try {
      return JSON.parse(control.value);
    } catch {
      return control.value;
    }
  };
  return single(field, control, read, { hint: join(field.schema.description, "As JSON.") });
}

function input(field, attributes) {
  return h("input", {
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    value: field.value ?? null,
    ...attributes,
  });
}

/** Sentences after one another, each with its full stop. */
const join = (...texts) => {
  const sentences = texts.filter(Boolean).map((text) => (/[.!?]$/.test(text) ? text : `${text}.`));
  return sentences.join(" ") || undefined;
};
const unless = (value, text) =>
  value === undefined || value === null || value === "" ? null : `${value} ${text}.`;
