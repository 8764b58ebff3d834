// The nodes that run CLIs.

import { confirmDialog } from "./dialog.js";
import { announce, button, h, table } from "./dom.js";
import { number } from "./format.js";
import { allPages } from "./pages.js";

export async function showRunners(page) {
  const slot = h("div");
  const list = await allPages(page.api, "/admin/runners", {}, (rows) => runnerTable(page, rows, slot), null);
  return [
    h("h1", { tabindex: -1 }, "Runners"),
    h(
      "div",
      { class: "buttons" },
      button("Ask again", () => page.reload(), { slot }),
    ),
    slot,
    list,
  ];
}

function runnerTable(page, runners, slot) {
  const columns = [
    { label: "Runner", cell: (runner) => [h("code", null, runner.id), " ", runner.url] },
    { label: "State", cell: stateOf },
    { label: "Load", cell: loadOf },
    { label: "Waiting", numeric: true, cell: (runner) => number(runner.queued) },
    { label: "Sandboxes ready", numeric: true, cell: (runner) => number(runner.parked) },
    { label: "CLIs", cell: (runner) => runner.clis.join(", ") || "none" },
    { label: "Version", cell: (runner) => runner.version },
  ];
  if (page.mayChange)
    columns.push({ label: "", cell: (runner) => (runner.draining ? null : drainButton(page, runner, slot)) });
  return table("Runners", columns, runners, { empty: "No runner announces itself." });
}

function stateOf(runner) {
  if (runner.draining) return h("span", { class: "tag degraded" }, "draining");
  return h("span", { class: `tag ${runner.up ? "healthy" : "down"}` }, runner.up ? "● up" : "○ down");
}

function loadOf(runner) {
  const text = `${number(runner.running)} of ${number(runner.slots)}`;
  return [
    text,
    " ",
    h("meter", {
      min: 0,
      max: Math.max(runner.slots, 1),
      value: runner.running,
      "aria-label": `${text} in use`,
    }),
  ];
}

function drainButton(page, runner, slot) {
  const drain = () =>
    confirmDialog({
      title: `Drain ${runner.id}?`,
      text: "It finishes what it runs and takes no more.",
      action: "Drain",
      act: async () => {
        await page.api.post(`/admin/runners/${encodeURIComponent(runner.id)}/drain`);
        await page.reload();
        announce(`${runner.id} drains`);
      },
    });
  return button("Drain …", drain, { slot, class: "quiet", "aria-label": `Drain ${runner.id}` });
}
