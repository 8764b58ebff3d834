import assert from "node:assert/strict";
import { test } from "node:test";

import { roundUp, stack } from "../../../admin-api/console/chart.js";
import { differences, mergePatch } from "../../../admin-api/console/diff.js";
import {
  ago,
  compact,
  dateTime,
  day,
  daysBetween,
  duration,
  limits,
  number,
  words,
} from "../../../admin-api/console/format.js";
import { partsOf, sumBy, withEmptyDays } from "../../../admin-api/console/usage_rows.js";

test("what differs is told member by member", () => {
  const before = { name: "a", same: 1, config: { url: "x", list: [1, 2] }, gone: true };
  const after = { name: "b", same: 1, config: { url: "x", list: [1, 3] }, "new/one": { deep: 1 } };
  assert.deepEqual(differences(before, after), [
    { path: "/name", before: "a", after: "b" },
    { path: "/config/list/1", before: 2, after: 3 },
    { path: "/gone", before: true, after: undefined },
    { path: "/new~1one/deep", before: undefined, after: 1 },
  ]);
  assert.deepEqual(differences(before, structuredClone(before)), []);
  assert.deepEqual(differences(undefined, { a: 1 }), [{ path: "/a", before: undefined, after: 1 }]);
  assert.deepEqual(differences("old", "new"), [{ path: "/", before: "old", after: "new" }]);
  assert.deepEqual(differences({ toString: 1 }, {}), [{ path: "/toString", before: 1, after: undefined }]);
});

test("a merge patch has what changed, and null for what is gone", () => {
  const before = {
    label: "a",
    owner: "me",
    expiresAt: null,
    limits: { requestsPerMinute: 5, tokensPerDay: null },
    models: ["a"],
  };
  const after = { label: "b", limits: { tokensPerDay: 7 }, models: ["a"] };
  assert.deepEqual(mergePatch(before, after), {
    label: "b",
    owner: null,
    limits: { requestsPerMinute: null, tokensPerDay: 7 },
  });
  assert.deepEqual(
    mergePatch(before, { ...before, expiresAt: undefined }),
    {},
    "what was null and is not given is the same",
  );
});

test("times read as people say them", () => {
  const now = Date.parse("2026-11-21T12:00:00Z");
  for (const [iso, text] of [
    ["2026-11-21T11:59:58Z", "just now"],
    ["2026-11-21T11:59:30Z", "30 seconds ago"],
    ["2026-11-21T11:00:00Z", "1 hour ago"],
    ["2026-11-23T12:00:00Z", "in 2 days"],
    ["never", "never"],
  ]) {
    assert.equal(ago(iso, now), text);
  }
  assert.equal(dateTime("2026-11-21T10:52:07.123Z"), "2026-11-21 10:52:07 UTC");
  assert.equal(dateTime("what"), "what");
  assert.equal(duration(850), "850 ms");
  assert.equal(duration(1_250), "1.25 s");
});

test("days are those of UTC, and bounded", () => {
  assert.equal(day(-1, Date.parse("2026-03-01T00:30:00Z")), "2026-02-28");
  assert.deepEqual(daysBetween("2028-02-28", "2028-03-01"), ["2028-02-28", "2028-02-29", "2028-03-01"]);
  assert.deepEqual(daysBetween("2028-03-01", "2028-02-28"), []);
  assert.equal(daysBetween("1970-01-01", "2070-01-01").length, 366);
});

test("names and numbers read well", () => {
  assert.equal(words("requestsPerMinute"), "Requests per minute");
  assert.equal(words("baseUrl"), "Base URL");
  assert.equal(words("connectMs"), "Connect (ms)");
  assert.equal(words("tokens_per_day"), "Tokens per day");
  assert.equal(number(1_234_567), "1,234,567");
  assert.equal(compact(1_234_567), "1.2M");
  assert.deepEqual(limits({ requestsPerMinute: 60, tokensPerDay: null }), ["60 requests per minute"]);
  assert.deepEqual(limits(null), []);
});

test("usage is summed by one member", () => {
  const rows = [
    {
      day: "2026-01-02",
      model: "a",
      requests: 1,
      failed: 0,
      promptTokens: 5,
      completionTokens: 5,
      estimated: 0,
    },
    {
      day: "2026-01-01",
      model: "b",
      requests: 2,
      failed: 1,
      promptTokens: 50,
      completionTokens: 1,
      estimated: 1,
    },
    {
      day: "2026-01-01",
      model: "a",
      requests: 4,
      failed: 0,
      promptTokens: 1,
      completionTokens: 1,
      estimated: 0,
    },
  ];
  assert.deepEqual(
    sumBy(rows, "day").map(({ name, requests }) => [name, requests]),
    [
      ["2026-01-01", 6],
      ["2026-01-02", 1],
    ],
  );
  assert.deepEqual(
    sumBy(rows, "model").map(({ name }) => name),
    ["a", "b"],
    "most requests first",
  );
  assert.deepEqual(
    sumBy(rows, "model", "tokens").map(({ name }) => name),
    ["b", "a"],
    "most tokens first",
  );
  const days = withEmptyDays(sumBy(rows, "day"), daysBetween("2026-01-01", "2026-01-03"));
  assert.deepEqual(
    days.map(({ requests }) => requests),
    [6, 1, 0],
  );
});

test("bars are stacked on a round scale", () => {
  assert.deepEqual([0, 1, 3, 7, 12, 99, 100, 101].map(roundUp), [1, 1, 5, 10, 20, 100, 100, 200]);
  const { top, bars } = stack(
    [
      { promptTokens: 60, completionTokens: 20 },
      { promptTokens: 0, completionTokens: 0 },
    ],
    partsOf("tokens"),
  );
  assert.equal(top, 100);
  assert.deepEqual(bars, [
    [
      { from: 0, to: 0.6 },
      { from: 0.6, to: 0.8 },
    ],
    [
      { from: 0, to: 0 },
      { from: 0, to: 0 },
    ],
  ]);
  assert.equal(stack([], partsOf("requests")).top, 1);
});
