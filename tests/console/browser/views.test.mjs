// Who sees what, and how it looks: viewers, the dark, narrow screens, the page of the API's document.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { assertAccessible, heading, launch, openTab, screenshot, section, signIn } from "./browser.mjs";
import { administrate, startGateway } from "./gateway.mjs";
import { startUpstream } from "./upstream.mjs";

const KEY = "sk-of-the-views";
const SECTIONS = ["Providers", "API keys", "Runners", "Usage", "Audit", "Explain"];
const HTML = "<img src=x onerror=alert(1)>";

let upstream, gateway, browser, admin;

before(async () => {
  upstream = await startUpstream(new Set([KEY]));
  gateway = await startGateway();
  browser = await launch();
  admin = await gateway.token("admin");
  await administrate(gateway.url, admin, "POST", "/providers", {
    name: "House",
    type: "local",
    description: HTML,
    models: [{ dyadModelId: "small", capabilities: { chat: true } }],
    adapterConfig: { baseUrl: upstream.url },
    credentials: { apiKey: KEY },
  });
  await administrate(gateway.url, admin, "POST", "/keys", {
    label: "a key",
    limits: { tokensPerDay: 1_000_000 },
  });
});

after(async () => {
  await browser?.close();
  upstream?.stop();
  await gateway?.stop();
});

test("a viewer sees everything, and no button that would be refused", async () => {
  const page = await openTab(browser);
  await signIn(page, gateway.url, await gateway.token("viewer"));
  const allowed = new Set([
    "Sign out",
    "Show",
    "Download CSV",
    "Verify the chain",
    "Explain",
    "Ask again",
    "Try again",
  ]);
  const look = async () => {
    const buttons = await page.locator("button:visible, a.button:visible").allInnerTexts();
    assert.deepEqual(
      buttons.filter((name) => !allowed.has(name)),
      [],
      await page.title(),
    );
  };
  for (const name of SECTIONS) {
    await section(page, name);
    await look();
  }
  await section(page, "Providers");
  await page.getByRole("link", { name: "House" }).click();
  await heading(page, "House");
  await page.getByText("sealed in the store").waitFor();
  await look();
  await section(page, "API keys");
  await page.getByRole("link", { name: "a key" }).click();
  await heading(page, "a key");
  await look();
  page.quiet();
});

test("what looks like HTML stays text, everywhere", async () => {
  const page = await openTab(browser);
  await signIn(page, gateway.url, admin);
  await page.getByRole("link", { name: "House" }).click();
  await page.getByText(HTML, { exact: true }).waitFor();
  await section(page, "Audit");
  await page.locator("summary").filter({ hasText: "provider/house" }).click();
  await page.getByText(HTML, { exact: true }).waitFor();
  assert.equal(await page.locator("main img").count(), 0);
  page.quiet();
});

for (const [look, options] of [
  ["light", {}],
  ["dark", { colorScheme: "dark" }],
  ["narrow", { viewport: { width: 360, height: 740 }, colorScheme: "dark", reducedMotion: "reduce" }],
]) {
  test(`every page is accessible and fits: ${look}`, async () => {
    const page = await openTab(browser, options);
    const fits = async (where) => {
      const excess = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert(excess <= 0, `${where} is ${excess} pixels too wide`);
      await assertAccessible(page, `${where} (${look})`);
      await screenshot(page, `${look}-${where.toLowerCase().replaceAll(" ", "-")}`);
    };
    await signIn(page, gateway.url, admin);
    for (const name of SECTIONS) {
      await section(page, name);
      await fits(name);
    }
    for (const [path, title] of [
      ["providers/house", "House"],
      ["providers/house/edit", "Edit House"],
      ["providers/new", "Add a provider"],
      ["providers/new/proxy", "Add a provider: proxy"],
      ["providers/new/spawn-cli", "Add a provider: spawn-cli"],
      ["keys/new", "Create a key"],
    ]) {
      await page.goto(`${gateway.url}/console#/${path}`);
      await heading(page, title);
      await fits(title.replace(": ", "-"));
    }
    await page.goto(`${gateway.url}/openapi`);
    await page.getByRole("heading", { level: 1 }).waitFor();
    await fits("API");
    page.quiet();
  });
}

test("the API's page has every operation, with parameters, schemas and examples", async () => {
  const page = await openTab(browser);
  const description = await (await fetch(`${gateway.url}/openapi.json`)).json();
  const operations = Object.entries(description.paths).flatMap(([path, item]) =>
    ["get", "post", "put", "patch", "delete"]
      .filter((method) => item[method])
      .map((method) => `${method.toUpperCase()} ${path}`),
  );
  await page.goto(`${gateway.url}/openapi`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  const summaries = (await page.locator("section summary").allInnerTexts()).map((text) =>
    text.replace(/\s+/g, " "),
  );
  for (const operation of operations) {
    assert(
      summaries.some((text) => text === operation || text.startsWith(`${operation} `)),
      `${operation} is not shown`,
    );
  }
  const create = page
    .locator("details")
    .filter({ has: page.locator("summary", { hasText: /POST\s+\/admin\/keys( |$)/ }) })
    .first();
  await create.locator("summary").first().click();
  await create.getByText("Idempotency-Key").first().waitFor();
  await create
    .getByRole("cell", { name: "expiresAt" })
    .or(create.getByRole("rowheader", { name: "expiresAt" }))
    .first()
    .waitFor();
  await create.locator("summary", { hasText: "Example" }).first().click();
  JSON.parse(await create.locator("pre").first().innerText());
  // A schema that is linked opens where it is.
  await page.goto(`${gateway.url}/openapi`);
  const [name] = Object.keys(description.components.schemas);
  await page.locator(`#schema-${name}`).waitFor();
  await screenshot(page, "api");
  page.quiet();
});

test("a token that ends signs out and says so", async () => {
  const page = await openTab(browser);
  await signIn(page, gateway.url, admin);
  await page.route("**/admin/keys*", (route) =>
    route.fulfill({
      status: 401,
      contentType: "application/json",
      body: JSON.stringify({
        error: {
          message: "the token has expired",
          type: "authentication_error",
          code: "invalid_token",
          param: null,
        },
      }),
    }),
  );
  await page.getByRole("navigation").getByRole("link", { name: "API keys" }).click();
  await page.getByRole("alert").getByText("the token has expired").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

test("a gateway that is away is said to be away, and what was entered stays", async () => {
  const page = await openTab(browser);
  await signIn(page, gateway.url, admin);
  await page.goto(`${gateway.url}/console#/keys/new`);
  await heading(page, "Create a key");
  await page.getByLabel("Label").fill("not lost");
  await page.route("**/admin/keys", (route) => route.abort());
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("alert").getByText("does not answer").waitFor();
  assert.equal(await page.getByLabel("Label").inputValue(), "not lost");
  // The same request with the same idempotency key: whatever became of the first one, there is one key.
  const keys = [];
  await page.unroute("**/admin/keys");
  await page.route("**/admin/keys", (route) => {
    keys.push(route.request().headers()["idempotency-key"]);
    return keys.length === 1 ? route.abort() : route.continue();
  });
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("alert").getByText("does not answer").waitFor();
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("dialog", { name: "The new key" }).waitFor();
  assert.equal(keys.length, 2);
  assert(keys[0] && keys[0] === keys[1]);
});
