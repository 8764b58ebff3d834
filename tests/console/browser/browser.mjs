// Chromium, and what people do with the console.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

/** Where `package.json` is installed: beside it, or where the suite's provisioning puts it. */
const require = createRequire(join(process.env.DYAD_CONSOLE_TOOLS ?? join(import.meta.dirname, ".."), "/"));
const { chromium } = require("playwright-core");
const axe = require("axe-core").source;

/** Longest wait for something to be seen. */
const SEEN_MS = 20_000;
const SCREENSHOTS = join(import.meta.dirname, "../screenshots");

const CHROMIUM =
  process.env.DYAD_CHROMIUM ??
  execFileSync(
    "sh",
    ["-c", "command -v chromium || command -v chromium-browser || command -v google-chrome"],
    {
      encoding: "utf8",
    },
  ).trim();

export const launch = () => chromium.launch({ executablePath: CHROMIUM });

/**
 * A tab that is not signed in. Whatever the browser complains of (a script that failed, something that the page's
 * policy forbids) is kept, and `quiet` fails on it.
 */
export async function openTab(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(SEEN_MS);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // Refused requests are part of what is tested; the browser notes each.
    const expected = /^Failed to load resource/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !expected) complaints.push(message.text());
  });
  page.quiet = () => assert.deepEqual(complaints, []);
  return page;
}

export async function signIn(page, url, token) {
  await page.goto(`${url}/console`);
  await page.getByLabel("Admin token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await heading(page, "Providers");
}

/** Waits until a page of the console is shown. */
export const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();

/** Goes to a section by the navigation. */
export async function section(page, name) {
  await page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
  await heading(page, name);
}

export async function screenshot(page, name) {
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

/** Fails on anything that keeps people from using the page, by the rules of axe. */
export async function assertAccessible(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const told = violations.map(({ id, impact, nodes }) => ({
    id,
    impact,
    nodes: nodes.map(({ html }) => html),
  }));
  assert.deepEqual(told, [], `${where} is not accessible`);
}

/** Fills the form of a provider that leads to an upstream. */
export async function fillProvider(page, { name, baseUrl, model, key }) {
  await page.getByLabel("Name", { exact: false }).first().fill(name);
  await page.getByLabel("Base URL").fill(baseUrl);
  await page.getByLabel("API key").fill(key);
  if ((await page.getByLabel("Dyad model ID").count()) === 0) {
    await page.getByRole("button", { name: "Add a model" }).click();
  }
  await page.getByLabel("Dyad model ID").fill(model);
}
