// Values as people read them. Nothing here touches the page.

const UNITS = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1_000],
];

/** `3 minutes ago`, `in 2 days`; `just now` within five seconds. */
export function ago(iso, now = Date.now()) {
  const difference = Date.parse(iso) - now;
  if (Number.isNaN(difference)) return String(iso);
  if (Math.abs(difference) < 5_000) return "just now";
  const [unit, length] = UNITS.find(([, ms]) => Math.abs(difference) >= ms) ?? UNITS.at(-1);
  return new Intl.RelativeTimeFormat("en", { numeric: "always" }).format(
    Math.trunc(difference / length),
    unit,
  );
}

/** `2026-11-21 10:52:07`, in UTC as the API has it. */
export function dateTime(iso) {
  const time = new Date(iso);
  return Number.isNaN(time.getTime())
    ? String(iso)
    : `${time.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** 1234567 → `1,234,567`. */
export const number = (value) => new Intl.NumberFormat("en").format(value);

/** 1234567 → `1.2M`. */
export const compact = (value) =>
  new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);

/** Milliseconds: `850 ms`, `1.25 s`. */
export const duration = (ms) => (ms < 1_000 ? `${ms} ms` : `${(ms / 1_000).toFixed(2)} s`);

/** Days as the API has them, `YYYY-MM-DD` in UTC; `offset` days from now. */
export const day = (offset = 0, now = Date.now()) =>
  new Date(now + offset * 86_400_000).toISOString().slice(0, 10);

/** All days from one to another, both included; at most 366. */
export function daysBetween(from, until) {
  const days = [];
  for (let at = Date.parse(from); at <= Date.parse(until) && days.length < 366; at += 86_400_000) {
    days.push(new Date(at).toISOString().slice(0, 10));
  }
  return days;
}

/** `requestsPerMinute` → `Requests per minute`; `baseUrl` → `Base URL`. */
export function words(name) {
  const spaced = name
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/[_-]/g, " ")
    .toLowerCase();
  const known = { id: "ID", url: "URL", api: "API", cli: "CLI", ms: "(ms)" };
  const text = spaced
    .split(" ")
    .map((word) => known[word] ?? word)
    .join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Limits of a key as `60 requests per minute`; those that are null are left out. */
export function limits(of) {
  const set = Object.entries(of ?? {}).filter(([, value]) => value !== null && value !== undefined);
  return set.map(([name, value]) => `${number(value)} ${words(name).toLowerCase()}`);
}
