// Elements. Whatever comes from the API is put in as text: there is no way here to make HTML of it.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are functions are listeners (`click: () => …`); `null`, `undefined` and `false` are left out. */
export function h(name, attributes, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, String(value));
  }
  const shown = children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...shown.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

let ids = 0;

/** An id that no other element has. */
export const newId = (prefix) => `${prefix}-${++ids}`;

/** Says something to screen readers, and shows it for whoever sees. */
export function announce(text) {
  const status = document.getElementById("status");
  // A text that is said twice has to change in between.
  status.replaceChildren();
  requestAnimationFrame(() => status.replaceChildren(h("span", null, text)));
}

/** A problem, as an alert. `error` is an ApiError or anything that was thrown. */
export function problem(error) {
  const details = error.details ?? [];
  return h(
    "div",
    { class: "problem", role: "alert", tabindex: -1 },
    h("p", null, h("strong", null, "That did not work. "), error.message),
    details.length > 0 &&
      h(
        "ul",
        null,
        details.map(({ pointer, message }) => h("li", null, h("code", null, pointer || "/"), ` ${message}`)),
      ),
    error.requestId && h("p", { class: "hint" }, "Request id: ", h("code", null, error.requestId)),
  );
}

/** A button that waits for what it does, and cannot be pressed twice meanwhile. `slot` is where its problems are shown. */
export function button(label, action, { slot, ...attributes } = {}) {
  const element = h("button", { type: "button", ...attributes, click: press }, label);
  async function press() {
    if (element.getAttribute("aria-disabled") === "true") return;
    element.setAttribute("aria-disabled", "true");
    element.setAttribute("aria-busy", "true");
    try {
      slot?.replaceChildren();
      await action();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!slot) throw error;
      slot.replaceChildren(error.element ?? problem(error));
      slot.firstElementChild.focus();
    } finally {
      element.removeAttribute("aria-disabled");
      element.removeAttribute("aria-busy");
    }
  }
  return element;
}

/** A table with a caption. `columns` are `{label, cell(row), numeric?}`; the first column names the row. */
export function table(caption, columns, rows, { empty = "There are none." } = {}) {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  const cell = (column, row, index) =>
    h(
      index === 0 ? "th" : "td",
      {
        scope: index === 0 ? "row" : null,
        class: column.numeric ? "number" : null,
        "data-label": column.label,
      },
      h("div", null, column.cell(row)),
    );
  return h(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    h(
      "table",
      null,
      h("caption", null, caption),
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          columns.map(({ label, numeric }) =>
            h("th", { scope: "col", class: numeric ? "number" : null }, label),
          ),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map((row) =>
          h(
            "tr",
            null,
            columns.map((column, index) => cell(column, row, index)),
          ),
        ),
      ),
    ),
  );
}

/** Terms and what they are; entries whose value is null are left out. */
export function facts(entries) {
  const shown = entries.filter(([, value]) => value !== null && value !== undefined);
  return h(
    "dl",
    { class: "facts" },
    shown.map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))),
  );
}

/** Text in which `backticks` mark code, as the API's own descriptions have it. */
export function prose(text) {
  return (text ?? "").split("`").map((part, index) => (index % 2 === 1 ? h("code", null, part) : part));
}

/** A time, short for people and exact for machines and on hover. */
export function timeElement(iso, text) {
  return h("time", { datetime: iso, title: iso }, text);
}
