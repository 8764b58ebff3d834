// The list of providers.

import { announce, h, table, timeElement } from "./dom.js";
import { ago, number } from "./format.js";
import { allPages } from "./pages.js";

const STATES = ["enabled", "disabled", "healthy", "degraded", "down", "unknown"];
const TYPES = ["proxy", "local", "spawn-cli"];

/** Health in words and a sign, not by colour alone. */
export function healthTag(health) {
  const signs = { healthy: "●", degraded: "◐", down: "○", unknown: "?" };
  const state = health?.state ?? "unknown";
  return [
    h(
      "span",
      { class: `tag ${state}` },
      h("span", { "aria-hidden": "true" }, `${signs[state] ?? "?"} `),
      state,
    ),
    health?.since && [" since ", timeElement(health.since, ago(health.since))],
  ];
}

export const enabledTag = (provider) =>
  h("span", { class: `tag ${provider.enabled ? "on" : "off"}` }, provider.enabled ? "enabled" : "disabled");

export async function showProviders(page) {
  const list = h("div");
  const [state, type] = [choose("State", STATES, filter), choose("Type", TYPES, filter)];

  async function fill() {
    const query = { state: state.control.value, type: type.control.value };
    list.replaceChildren(await allPages(page.api, "/admin/providers", query, rows));
  }

  async function filter() {
    await fill();
    announce("The list is filtered");
  }

  await fill();
  return [
    h("h1", { tabindex: -1 }, "Providers"),
    page.mayChange &&
      h("p", null, h("a", { href: "#/providers/new", class: "button primary" }, "Add a provider")),
    h("form", { class: "filter", submit: (event) => event.preventDefault() }, state.element, type.element),
    list,
  ];
}

function rows(providers) {
  return table(
    "Providers",
    [
      {
        label: "Name",
        cell: (provider) => [
          h("a", { href: `#/providers/${encodeURIComponent(provider.slug)}` }, provider.name),
          " ",
          h("code", null, provider.slug),
        ],
      },
      { label: "Type", cell: (provider) => provider.type },
      { label: "State", cell: enabledTag },
      { label: "Health", cell: (provider) => healthTag(provider.health) },
      { label: "Models", numeric: true, cell: (provider) => models(provider) },
      { label: "Rank", numeric: true, cell: (provider) => provider.rank },
      {
        label: "Kept in",
        cell: (provider) => (provider.origin === "given" ? "command line or file" : "store"),
      },
    ],
    providers,
    { empty: "There are no providers. Whoever chats needs one." },
  );
}

function models(provider) {
  if (provider.adapterConfig?.discoverModels && provider.models.length === 0) return "asked of it";
  return number(provider.models.length);
}

function choose(label, choices, change) {
  const id = `filter-${label.toLowerCase()}`;
  const control = h(
    "select",
    { id, change },
    h("option", { value: "" }, "any"),
    choices.map((choice) => h("option", { value: choice }, choice)),
  );
  return { control, element: h("div", { class: "field" }, h("label", { for: id }, label), control) };
}
