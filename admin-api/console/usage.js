// What was used: a chart, the same as a table, and as CSV.

import { bars, columns } from "./chart.js";
import { announce, button, h, table } from "./dom.js";
import { day, daysBetween, number, words } from "./format.js";
import { GROUPS, partsOf, sumBy, withEmptyDays } from "./usage_rows.js";

export async function showUsage(page) {
  const result = h("div");
  const slot = h("div");
  const from = h("input", { type: "date", id: "usage-from", value: day(-29) });
  const until = h("input", { type: "date", id: "usage-until", value: day() });
  const only = Object.fromEntries(
    ["key", "provider", "model"].map((name) => [
      name,
      h("input", { type: "text", id: `usage-${name}`, autocomplete: "off", spellcheck: "false" }),
    ]),
  );
  const group = select(
    "usage-group",
    GROUPS.map((name) => [name, name]),
  );
  const measure = select("usage-measure", [
    ["tokens", "tokens"],
    ["requests", "requests"],
  ]);
  const query = () => ({
    from: from.value,
    until: until.value,
    ...Object.fromEntries(Object.entries(only).map(([name, field]) => [name, field.value.trim()])),
  });
  let rows = [];
  let asked = query();

  const load = async () => {
    asked = query();
    ({
      body: { data: rows },
    } = await page.api.get("/admin/usage", { ...asked, groupBy: group.value }));
    draw();
  };
  const draw = () => result.replaceChildren(...report(rows, asked, group.value, measure.value));
  const download = async () => {
    const { response, body } = await page.api.get(
      "/admin/usage",
      { ...query(), format: "csv" },
      { accept: "text/csv" },
    );
    const url = URL.createObjectURL(new Blob([body], { type: response.headers.get("content-type") }));
    const link = h("a", { href: url, download: `usage-${from.value}-${until.value}.csv` });
    link.click();
    URL.revokeObjectURL(url);
    announce("Downloaded");
  };
  const show = button("Show", load, { slot, class: "primary" });
  show.type = "submit";
  const field = (label, control) =>
    h("div", { class: "field" }, h("label", { for: control.id }, label), control);
  const form = h(
    "form",
    { class: "filter", novalidate: true, submit: (event) => event.preventDefault() },
    field("From", from),
    field("Until", until),
    Object.entries(only).map(([name, control]) => field(`Only ${name}`, control)),
    field("By", group),
    field("Count", measure),
    show,
    button("Download CSV", download, { slot }),
  );
  measure.addEventListener("change", draw);
  await load();
  return [
    h("h1", { tabindex: -1 }, "Usage"),
    h("p", { class: "hint" }, "Days are those of UTC."),
    form,
    slot,
    result,
  ];
}

function select(id, choices) {
  return h(
    "select",
    { id },
    choices.map(([value, text]) => h("option", { value }, text)),
  );
}

function report(rows, { from, until }, group, measure) {
  const sums = sumBy(rows, group, measure);
  const parts = partsOf(measure);
  const label = `${words(measure)} by ${group}, from ${from} until ${until}`;
  if (sums.length === 0) return [h("p", { class: "empty" }, "Nothing was used in these days.")];
  const chart =
    group === "day"
      ? columns(withEmptyDays(sums, daysBetween(from, until)), parts, label)
      : bars(sums, parts, label);
  const total = sumBy(
    rows.map((row) => ({ ...row, all: "Together" })),
    "all",
  );
  const count = (name, text) => ({ label: text, numeric: true, cell: (sum) => number(sum[name]) });
  return [
    chart,
    table(
      label,
      [
        { label: words(group), cell: (sum) => sum.name || "–" },
        count("requests", "Requests"),
        count("failed", "Failed"),
        count("promptTokens", "Prompt tokens"),
        count("completionTokens", "Completion tokens"),
        count("estimated", "Estimated"),
      ],
      [...sums, ...total],
    ),
  ];
}
