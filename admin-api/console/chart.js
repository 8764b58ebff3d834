// Bars as SVG. The layout is arithmetic; the table beside the chart says the same in numbers.

import { h, newId, svg } from "./dom.js";
import { compact, number } from "./format.js";

const WIDTH = 800;

/** A round number at or above `value`: 1, 2 or 5 times a power of ten. */
export function roundUp(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= value);
}

/** Where stacked bars are: for each of `rows`, for each of `parts`, `{from, to}` between 0 and 1 of the scale's top. */
export function stack(rows, parts) {
  const total = (row) => parts.reduce((sum, { count }) => sum + row[count], 0);
  const top = roundUp(Math.max(0, ...rows.map(total)));
  const bars = rows.map((row) => {
    let sum = 0;
    return parts.map(({ count }) => {
      const from = sum / top;
      sum += row[count];
      return { from, to: sum / top };
    });
  });
  return { top, bars };
}

/** Upright bars, one for each day. */
export function columns(rows, parts, label) {
  const [height, left, bottom, upper] = [220, 56, 24, 12];
  const { top, bars } = stack(rows, parts);
  const step = (WIDTH - left) / Math.max(rows.length, 1);
  const y = (share) => upper + (1 - share) * (height - upper - bottom);
  const lines = [0, 0.5, 1].map((share) => [
    svg("line", { class: "grid", x1: left, x2: WIDTH, y1: y(share), y2: y(share) }),
    svg("text", { class: "axis", x: left - 8, y: y(share) + 4, "text-anchor": "end" }, compact(top * share)),
  ]);
  const every = Math.ceil(rows.length / 8);
  const days = rows.map(
    ({ name }, index) =>
      index % every === 0 &&
      svg(
        "text",
        { class: "axis", x: left + (index + 0.5) * step, y: height - 6, "text-anchor": "middle" },
        name.slice(5),
      ),
  );
  const shapes = bars.map((stacked, index) =>
    stacked.map(
      ({ from, to }, part) =>
        to > from &&
        svg(
          "rect",
          {
            class: `part-${part}`,
            x: left + (index + 0.15) * step,
            width: Math.max(step * 0.7, 0.5),
            y: y(to),
            height: y(from) - y(to),
          },
          svg(
            "title",
            null,
            `${rows[index].name}: ${number(rows[index][parts[part].count])} ${parts[part].label}`,
          ),
        ),
    ),
  );
  return drawing(height, label, parts, [lines, shapes, days]);
}

/** Lying bars, one for each name: the 20 longest. */
export function bars(rows, parts, label) {
  const shown = rows.slice(0, 20);
  const [left, line] = [220, 26];
  const { bars: stacked } = stack(shown, parts);
  const x = (share) => left + share * (WIDTH - left - 60);
  const rowsOf = shown.map((row, index) => {
    const total = parts.reduce((sum, { count }) => sum + row[count], 0);
    const middle = index * line + line / 2;
    return [
      svg(
        "text",
        { class: "axis", x: left - 8, y: middle + 4, "text-anchor": "end" },
        shorten(row.name),
        svg("title", null, row.name),
      ),
      stacked[index].map(
        ({ from, to }, part) =>
          to > from &&
          svg(
            "rect",
            { class: `part-${part}`, x: x(from), width: x(to) - x(from), y: middle - 8, height: 16 },
            svg("title", null, `${row.name}: ${number(row[parts[part].count])} ${parts[part].label}`),
          ),
      ),
      svg("text", { class: "axis", x: x(stacked[index].at(-1).to) + 6, y: middle + 4 }, compact(total)),
    ];
  });
  return drawing(shown.length * line, label, parts, rowsOf);
}

const shorten = (name) => (name.length > 28 ? `${name.slice(0, 27)}…` : name);

function drawing(height, label, parts, content) {
  const title = newId("chart");
  const legend =
    parts.length > 1 &&
    h(
      "p",
      { class: "legend", "aria-hidden": "true" },
      parts.map(({ label: text }, part) =>
        h("span", null, h("span", { class: `swatch part-${part}` }), ` ${text} `),
      ),
    );
  return h(
    "figure",
    null,
    svg(
      "svg",
      { role: "img", "aria-labelledby": title, viewBox: `0 0 ${WIDTH} ${Math.max(height, 1)}` },
      svg("title", { id: title }, `${label}. The table below has the numbers.`),
      content,
    ),
    legend,
  );
}
