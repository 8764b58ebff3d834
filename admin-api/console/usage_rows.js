// Sums of usage. Nothing here touches the page.

export const GROUPS = ["day", "key", "provider", "model"];

/** Counts that are added up. */
const COUNTS = ["requests", "failed", "promptTokens", "completionTokens", "estimated"];

/** Rows summed by one member: `[{name, requests, …}]`; days in order, everything else by what it used most of. */
export function sumBy(rows, group, measure = "requests") {
  const sums = new Map();
  for (const row of rows) {
    const name = row[group] ?? "";
    const sum = sums.get(name) ?? { name, ...Object.fromEntries(COUNTS.map((count) => [count, 0])) };
    COUNTS.forEach((count) => (sum[count] += row[count] ?? 0));
    sums.set(name, sum);
  }
  const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  const size = (sum) => partsOf(measure).reduce((total, { count }) => total + sum[count], 0);
  return [...sums.values()].sort(group === "day" ? byName : (a, b) => size(b) - size(a) || byName(a, b));
}

/** Sums of days with the days on which nothing was used. */
export function withEmptyDays(sums, days) {
  const byDay = new Map(sums.map((sum) => [sum.name, sum]));
  return days.map(
    (name) => byDay.get(name) ?? { name, ...Object.fromEntries(COUNTS.map((count) => [count, 0])) },
  );
}

/** What a bar is made of: the parts add up to the measure. */
export function partsOf(measure) {
  if (measure === "tokens") {
    return [
      { count: "promptTokens", label: "prompt tokens" },
      { count: "completionTokens", label: "completion tokens" },
    ];
  }
  return [{ count: "requests", label: "requests" }];
}
