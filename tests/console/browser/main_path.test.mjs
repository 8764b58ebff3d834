// What a new administrator does on the first day, in a browser, against the real gateway.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import {
  assertAccessible,
  fillProvider,
  heading,
  launch,
  openTab,
  screenshot,
  section,
  signIn,
} from "./browser.mjs";
import { chat, eventually, startGateway } from "./gateway.mjs";
import { startUpstream } from "./upstream.mjs";

const FIRST_KEY = "sk-first-credential-of-the-upstream";
const SECOND_KEY = "sk-second-credential-of-the-upstream";
/** What the README promises for a change of keys and providers. */
const CHANGE_MS = 15_000;

let upstream, gateway, browser, page, apiKey;

before(async () => {
  upstream = await startUpstream(new Set([FIRST_KEY, SECOND_KEY]));
  gateway = await startGateway();
  browser = await launch();
  page = await openTab(browser);
});

after(async () => {
  await browser?.close();
  upstream?.stop();
  const log = await gateway?.stop();
  for (const secret of [FIRST_KEY, SECOND_KEY, apiKey])
    assert(!log?.includes(secret), "a secret is in the log");
});

test("signs in with a token, which is in no address and no cookie", async () => {
  await page.goto(`${gateway.url}/console`);
  await page.getByLabel("Admin token").fill("not.a.token");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await assertAccessible(page, "the sign-in page");
  await screenshot(page, "sign-in-refused");
  const token = await gateway.token("admin");
  await signIn(page, gateway.url, token);
  assert(!page.url().includes(token));
  assert.deepEqual(await page.context().cookies(), []);
  await page.reload();
  await heading(page, "Providers");
  await assertAccessible(page, "the list of providers");
});

test("adds a provider; a mistake is shown beside its field", async () => {
  await page.getByRole("link", { name: "Add a provider" }).click();
  await page.getByRole("link", { name: "local" }).click();
  await heading(page, "Add a provider: local");
  await assertAccessible(page, "the form");
  await fillProvider(page, {
    name: "House <b>model</b>",
    baseUrl: "ftp://nowhere",
    model: "small",
    key: FIRST_KEY,
  });
  await page.getByLabel("Rank").fill("first");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  const alert = page.getByRole("alert");
  await alert.getByText("2 things are not right").waitFor();
  const baseUrl = page.getByLabel("Base URL");
  assert.equal(await baseUrl.getAttribute("aria-invalid"), "true");
  assert.match(await describedBy(baseUrl), /http/);
  assert.equal(await page.getByLabel("Rank").getAttribute("aria-invalid"), "true");
  await screenshot(page, "violations");
  await assertAccessible(page, "the form with violations");
  await alert.getByRole("link", { name: "Base URL" }).click();
  assert(
    await baseUrl.evaluate((element) => element === document.activeElement),
    "the link leads to its field",
  );

  await baseUrl.fill(upstream.url);
  await page.getByLabel("Rank").fill("5");
  await page.getByRole("button", { name: "Check without saving" }).click();
  await page.getByText("Nothing was saved").waitFor();
  await page.getByText("It can be reached").waitFor();
  await page.getByRole("button", { name: "Add", exact: true }).click();
  // What looks like HTML is text.
  await heading(page, "House <b>model</b>");
  const text = await page.locator("main").innerText();
  assert(text.includes("sealed in the store") && !text.includes(FIRST_KEY));
});

test("tests it, with the time of each stage", async () => {
  await page.getByRole("button", { name: "Test now" }).click();
  await page.getByText("It works.").waitFor();
  await page.getByText("Hello from upstream.").waitFor();
  for (const stage of ["Connected", "First byte", "First token", "End"]) {
    await page.getByRole("rowheader", { name: stage }).waitFor();
  }
  await screenshot(page, "provider-tested");
  await assertAccessible(page, "the provider's page");
  await page.getByRole("button", { name: "Check only" }).click();
  await page.getByText("It can be reached.").waitFor();
});

test("creates a key, which is shown once, and chats with it", async () => {
  await section(page, "API keys");
  await page.getByRole("link", { name: "Create a key" }).click();
  await heading(page, "Create a key");
  await page.getByLabel("Label").fill("first day");
  await page.getByRole("group", { name: "Limits" }).getByText("Set limits").click();
  await page.getByLabel("Requests per minute").fill("600");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "The new key" });
  apiKey = await dialog.getByLabel("Secret").inputValue();
  assert.match(apiKey, /^dgw_/);
  await assertAccessible(page, "the dialog with the key");
  await dialog.getByRole("button", { name: "Done" }).click();
  await heading(page, "first day");
  assert(!(await page.content()).includes(apiKey), "the key is shown once");
  await page.getByText("600 requests per minute").waitFor();

  const answer = await eventually(
    CHANGE_MS,
    () => chat(gateway.url, apiKey, "small"),
    ({ status }) => status === 200,
  );
  assert.equal(answer.body.choices[0].message.content, "Hello from upstream.");
});

test("explains what would become of a request", async () => {
  await section(page, "Explain");
  await page
    .getByLabel("Request", { exact: true })
    .fill(JSON.stringify({ model: "small", messages: [{ role: "user", content: "Hi" }] }));
  const key = page.getByLabel("As the key");
  const names = await key.getByRole("option").allInnerTexts();
  await key.selectOption(names.find((name) => name.startsWith("first day")));
  await page.getByRole("button", { name: "Explain" }).click();
  await page.getByText("It would be answered.").waitFor();
  await page.getByRole("row", { name: "requests per minute" }).waitFor();
  await assertAccessible(page, "the explanation");
  await page.getByLabel("Request", { exact: true }).fill("{");
  await page.getByRole("button", { name: "Explain" }).click();
  await page.getByText("The request is not JSON").waitFor();
});

test("rotates the credential; one that is not taken changes nothing", async () => {
  await toProvider();
  const rotate = async (key) => {
    await page.getByRole("button", { name: "Rotate credential" }).click();
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Rotate", exact: true }).click();
  };
  await rotate("sk-of-nobody");
  await page.getByText("Nothing was changed.").waitFor();
  await screenshot(page, "rotation-refused");
  await page.getByRole("button", { name: "Cancel" }).click();
  await rotate(SECOND_KEY);
  await page.getByText("The credential is rotated").waitFor();
  await page.getByText("version 1, used until").waitFor();
  await eventually(
    CHANGE_MS,
    async () => ({ ...(await chat(gateway.url, apiKey, "small")), key: upstream.seen.at(-1).key }),
    ({ status, key }) => status === 200 && key === SECOND_KEY,
  );
});

test("disables and enables it", async () => {
  await page.getByRole("button", { name: "Disable" }).click();
  await page.getByRole("button", { name: "Enable" }).waitFor();
  await eventually(
    CHANGE_MS,
    () => chat(gateway.url, apiKey, "small"),
    ({ status }) => status === 404,
  );
  await page.getByRole("button", { name: "Enable" }).click();
  await page.getByRole("button", { name: "Disable" }).waitFor();
  await eventually(
    CHANGE_MS,
    () => chat(gateway.url, apiKey, "small"),
    ({ status }) => status === 200,
  );
});

test("hears that somebody else changed it, and loads the new state", async () => {
  await page.getByRole("link", { name: "Edit" }).click();
  await heading(page, "Edit House <b>model</b>");
  const other = await openTab(browser);
  await signIn(other, gateway.url, await gateway.token("admin"));
  await other.getByRole("link", { name: "House <b>model</b>" }).click();
  await other.getByRole("link", { name: "Edit" }).click();
  await other.getByLabel("Description").fill("changed by another");
  await other.getByRole("button", { name: "Save" }).click();
  await other.getByText("changed by another", { exact: true }).waitFor();
  other.quiet();
  await other.context().close();

  await page.getByLabel("Description").fill("changed by me");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Somebody else has changed this").waitFor();
  assert.equal(await page.getByLabel("Description").inputValue(), "changed by me", "what was entered stays");
  await page.getByRole("button", { name: "Load the new state" }).click();
  await page.waitForFunction(
    () => document.querySelector("[name=description]")?.value === "changed by another",
  );
});

test("revokes the key, which is refused from then on", async () => {
  await section(page, "API keys");
  await page.getByRole("link", { name: "first day" }).click();
  await page.getByRole("button", { name: "Revoke" }).click();
  const dialog = page.getByRole("dialog", { name: "Revoke first day?" });
  await dialog.getByRole("button", { name: "Revoke", exact: true }).click();
  await page.locator("main").getByText("revoked", { exact: true }).waitFor();
  assert.equal(
    await page.getByRole("button", { name: "Rotate" }).count(),
    0,
    "what would be refused is not offered",
  );
  await eventually(
    CHANGE_MS,
    () => chat(gateway.url, apiKey, "small"),
    ({ status }) => status === 401,
  );
});

test("sees all of it in the audit log, whose chain is whole", async () => {
  await section(page, "Audit");
  for (const change of [
    "create provider/house",
    "rotate provider/house",
    "update provider/house",
    "create key/",
    "revoke key/",
  ]) {
    const [action, object] = change.split(" ");
    const entry = page.locator("summary").filter({ hasText: action }).filter({ hasText: object }).first();
    await entry.waitFor();
    assert.match(await entry.innerText(), /by admin@example\.com/);
  }
  const rotated = page
    .locator("details")
    .filter({ has: page.locator("summary", { hasText: "rotate" }) })
    .first();
  await rotated.locator("summary").click();
  await rotated.getByText("before:").first().waitFor();
  await page.getByRole("button", { name: "Verify the chain" }).click();
  await page.getByText("The log is whole.").waitFor();
  await screenshot(page, "audit");
  await assertAccessible(page, "the audit log");
  const text = await page.content();
  for (const secret of [FIRST_KEY, SECOND_KEY, apiKey]) assert(!text.includes(secret));
  await page.getByLabel("Action").selectOption("revoke");
  await page.getByRole("button", { name: "Show", exact: true }).click();
  await page.locator("summary").filter({ hasText: "create" }).first().waitFor({ state: "detached" });
});

test("sees it in the usage, as a chart, a table and CSV", async () => {
  await section(page, "Usage");
  // It is counted in batches, so it may be some seconds late.
  const row = page.getByRole("row").filter({ has: page.getByRole("rowheader", { name: "small" }) });
  await page.getByLabel("By", { exact: true }).selectOption("model");
  await eventually(
    CHANGE_MS * 4,
    async () => {
      const answered = page.waitForResponse((response) => response.url().includes("/admin/usage"));
      await page.getByRole("button", { name: "Show", exact: true }).click();
      await (await answered).finished();
      return row.count();
    },
    (count) => count === 1,
  );
  await page.getByRole("img", { name: /Tokens by model/ }).waitFor();
  await screenshot(page, "usage");
  await assertAccessible(page, "the usage");
  const started = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download CSV" }).click();
  const chunks = [];
  for await (const chunk of await (await started).createReadStream()) chunks.push(chunk);
  assert.match(Buffer.concat(chunks).toString(), /small/);
});

test("deletes the provider after a question, and signs out", async () => {
  await toProvider();
  await page.getByRole("button", { name: "Delete" }).click();
  const dialog = page.getByRole("dialog", { name: /^Delete/ });
  await assertAccessible(page, "the question");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Delete" }).click();
  await dialog.getByRole("button", { name: "Delete", exact: true }).click();
  await heading(page, "Providers");
  await page.getByText("There are no providers.").waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Admin token").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  page.quiet();
});

async function toProvider() {
  await section(page, "Providers");
  await page.getByRole("link", { name: "House <b>model</b>" }).click();
  await heading(page, "House <b>model</b>");
}

/** What a screen reader reads after the field's name. */
const describedBy = (field) =>
  field.evaluate((element) =>
    element
      .getAttribute("aria-describedby")
      .split(" ")
      .map((id) => document.getElementById(id).textContent)
      .join(" "),
  );
