// The console's frame: sign-in, navigation, and which page is shown. Pages are named after the hash of the address.

import { Api } from "./api.js";
import { showAudit } from "./audit.js";
import { announce, h, problem } from "./dom.js";
import { showExplain } from "./explain.js";
import { dateTime } from "./format.js";
import { showKey, showKeys, showNewKey } from "./keys.js";
import { showProvider } from "./provider.js";
import { showEditProvider, showNewProvider } from "./provider_form.js";
import { showProviders } from "./providers.js";
import { showRunners } from "./runners.js";
import { forgetToken, signInForm, storedToken, storeToken } from "./sign_in.js";
import { showUsage } from "./usage.js";

const SECTIONS = [
  ["providers", "Providers"],
  ["keys", "API keys"],
  ["runners", "Runners"],
  ["usage", "Usage"],
  ["audit", "Audit"],
  ["explain", "Explain"],
];

/** Each builds its page from the parts of the address behind it, and answers its elements, an `h1` first. */
const PAGES = [
  [/^providers$/, showProviders],
  [/^providers\/new$/, showNewProvider],
  [/^providers\/new\/([^/]+)$/, showNewProvider],
  [/^providers\/([^/]+)$/, showProvider],
  [/^providers\/([^/]+)\/edit$/, showEditProvider],
  [/^keys$/, showKeys],
  [/^keys\/new$/, showNewKey],
  [/^keys\/([^/]+)$/, showKey],
  [/^runners$/, showRunners],
  [/^usage$/, showUsage],
  [/^audit$/, showAudit],
  [/^explain$/, showExplain],
];

const header = document.getElementById("header");
const main = document.getElementById("main");
let console_ = null;
let shown = null;

/** What every page is given. */
class Console {
  constructor(api, who) {
    this.api = api;
    this.who = who;
    /** Whether changes are allowed: buttons that would be refused are not there. */
    this.mayChange = who.role === "admin";
  }

  /** Shows another page. */
  go(path) {
    if (currentPath() === path) show();
    else location.hash = `#/${path}`;
  }

  /** Shows this page anew, from what the API says now. */
  reload() {
    return show();
  }
}

const currentPath = () => location.hash.replace(/^#\/?/, "") || "providers";

async function signIn(token) {
  const api = new Api(token, (error) => signOut(error.message));
  api.refused = () => {};
  const { body: who } = await api.get("/admin/whoami");
  api.refused = (error) => signOut(error.message);
  storeToken(token);
  console_ = new Console(api, who);
  drawHeader();
  announce(`Signed in as ${who.actor}`);
  await show();
}

function signOut(reason) {
  forgetToken();
  shown?.abort();
  console_ = null;
  drawHeader();
  main.replaceChildren(signInForm(signIn, reason));
  document.title = "Sign in – Dyad Gateway";
  closeDialogs();
  main.querySelector("input").focus();
}

function drawHeader() {
  const brand = h("p", { class: "brand" }, "Dyad Gateway");
  if (!console_) return header.replaceChildren(brand);
  const { who } = console_;
  const links = SECTIONS.map(([path, label]) => h("li", null, h("a", { href: `#/${path}` }, label)));
  links.push(h("li", null, h("a", { href: "/openapi" }, "API")));
  header.replaceChildren(
    brand,
    h("nav", { "aria-label": "Sections" }, h("ul", null, links)),
    h(
      "div",
      { class: "who" },
      h(
        "span",
        { title: who.expiresAt ? `until ${dateTime(who.expiresAt)}` : null },
        who.actor,
        " ",
        h("span", { class: "tag" }, who.role),
      ),
      h("button", { type: "button", class: "quiet", click: () => signOut() }, "Sign out"),
    ),
  );
}

/** Shows the page that the address names. Whatever the page before was still waiting for is given up. */
async function show() {
  if (!console_) return;
  shown?.abort();
  closeDialogs();
  shown = new AbortController();
  const { signal } = shown;
  console_.api.signal = signal;
  const path = currentPath();
  for (const link of header.querySelectorAll("nav a")) {
    const isHere = path.split("/")[0] === link.getAttribute("href").slice(2);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.setAttribute("aria-busy", "true");
  let content;
  try {
    const [page, parts] = match(path);
    content = await page(console_, ...parts);
  } catch (error) {
    if (signal.aborted || !console_) return;
    const section = SECTIONS.find(([name]) => name === path)?.[1];
    content = [
      h("h1", { tabindex: -1 }, section ?? "Not shown"),
      problem(error),
      h("p", null, h("button", { type: "button", click: show }, "Try again")),
    ];
  } finally {
    if (!signal.aborted) main.removeAttribute("aria-busy");
  }
  if (signal.aborted || !console_) return;
  main.replaceChildren(...content.flat(Infinity).filter(Boolean));
  const title = main.querySelector("h1");
  document.title = `${title.textContent} – Dyad Gateway`;
  title.focus();
  scrollTo(0, 0);
}

/** A dialog belongs to the page that it was opened from. */
function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
}

function match(path) {
  for (const [pattern, page] of PAGES) {
    const found = pattern.exec(path);
    if (found) return [page, found.slice(1).map(decodeURIComponent)];
  }
  throw new Error(`The console has no page "${path}".`);
}

addEventListener("hashchange", show);
document.querySelector(".skip").addEventListener("click", (event) => {
  // The hash is the page's name, so the link moves the focus by itself.
  event.preventDefault();
  main.focus();
});

const token = storedToken();
if (token) signIn(token).catch((error) => signOut(error.message));
else signOut();
