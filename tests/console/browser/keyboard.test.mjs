// The main path without a mouse: every step by keys alone, and the focus always where one expects it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { heading, launch, openTab } from "./browser.mjs";
import { startGateway } from "./gateway.mjs";
import { startUpstream } from "./upstream.mjs";

const KEY = "sk-of-the-keyboard";
/** More than any page has between two things that are wanted one after another. */
const MAX_TABS = 80;

let upstream, gateway, browser, page;

before(async () => {
  upstream = await startUpstream(new Set([KEY]));
  gateway = await startGateway();
  browser = await launch();
  page = await openTab(browser);
});

after(async () => {
  await browser?.close();
  upstream?.stop();
  await gateway?.stop();
});

/** What has the focus: its role or tag, and its name. */
const focused = () =>
  page.evaluate(() => {
    const element = document.activeElement;
    const label =
      element.labels?.[0]?.textContent ?? element.getAttribute("aria-label") ?? element.textContent;
    return { tag: element.tagName.toLowerCase(), name: label.trim() };
  });

/** Presses Tab until something has the focus whose name begins so. */
async function tabTo(tag, name) {
  const seen = [];
  for (let count = 0; count < MAX_TABS; count++) {
    await page.keyboard.press("Tab");
    const at = await focused();
    if (at.tag === tag && at.name.startsWith(name)) return;
    seen.push(`${at.tag} ${at.name.slice(0, 30)}`);
  }
  assert.fail(`Tab does not come to ${tag} "${name}", but to ${seen.join(" | ")}`);
}

async function assertFocusVisible() {
  const outline = await page.evaluate(() => {
    const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
    return outlineStyle === "none" ? 0 : parseFloat(outlineWidth);
  });
  assert(outline >= 2, "the focus is not visible");
}

test("signs in; the focus is on the page's heading", async () => {
  await page.goto(`${gateway.url}/console`);
  await page.getByLabel("Admin token").waitFor();
  assert.deepEqual(await focused(), { tag: "input", name: "Admin token" });
  await page.keyboard.insertText(await gateway.token("admin"));
  await page.keyboard.press("Enter");
  await heading(page, "Providers");
  await page.waitForFunction(() => document.activeElement.tagName === "H1");
});

test("a link leads past the navigation", async () => {
  await page.reload();
  await heading(page, "Providers");
  await tabTo("a", "Skip to the content");
  await page.locator(".skip").evaluate((link) => {
    const { left, top } = link.getBoundingClientRect();
    if (left < 0 || top < 0) throw new Error("the link is not seen while it has the focus");
  });
  await page.keyboard.press("Enter");
  assert.equal((await focused()).tag, "main");
});

test("adds a provider, with a mistake first", async () => {
  await tabTo("a", "Add a provider");
  await assertFocusVisible();
  await page.keyboard.press("Enter");
  await heading(page, "Add a provider");
  await tabTo("a", "local");
  await page.keyboard.press("Enter");
  await heading(page, "Add a provider: local");
  await tabTo("input", "Name");
  await assertFocusVisible();
  await page.keyboard.insertText("Keys only");
  await tabTo("input", "Base URL");
  await page.keyboard.insertText("nowhere");
  // Enter in a field sends the form.
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  await page.waitForFunction(() => document.activeElement.getAttribute("role") === "alert");
  await tabTo("a", "Base URL");
  await page.keyboard.press("Enter");
  assert.match((await focused()).name, /^Base URL/);
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText(upstream.url);
  await tabTo("input", "API key");
  await page.keyboard.insertText(KEY);
  await tabTo("button", "Add a model");
  await page.keyboard.press("Space");
  assert.match((await focused()).name, /^Dyad model ID/, "the new model's first field has the focus");
  await page.keyboard.insertText("small");
  await page.keyboard.press("Enter");
  await heading(page, "Keys only");
  await page.waitForFunction(() => document.activeElement.tagName === "H1");
});

test("tests it and disables it", async () => {
  await tabTo("button", "Disable");
  await page.keyboard.press("Space");
  await page.getByRole("button", { name: "Enable" }).waitFor();
  await tabTo("button", "Test now");
  await page.keyboard.press("Enter");
  await page.getByText("It works.").waitFor();
  assert.equal((await focused()).name, "Test now", "the focus stays on the button");
});

test("a question takes the focus, Escape gives it back, and Enter answers it", async () => {
  await page.evaluate(() => document.querySelector("h1").focus());
  await tabTo("button", "Delete");
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  assert.equal((await focused()).name, "Cancel", "what does no harm comes first");
  for (let count = 0; count < 6; count++) {
    await page.keyboard.press("Tab");
    const outside = await page.evaluate(
      () => !document.activeElement.closest("dialog, body:not(:has(main :focus))"),
    );
    assert(!outside, "the focus stays in the dialog");
  }
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.match((await focused()).name, /^Delete/);
  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await tabTo("button", "Delete");
  await page.keyboard.press("Enter");
  await heading(page, "Providers");
  page.quiet();
});
