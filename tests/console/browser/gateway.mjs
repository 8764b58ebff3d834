// The real gateway as a process, on a data directory of its own.

import { execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { openSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const BINARY =
  process.env.DYAD_GATEWAY_BIN ?? join(import.meta.dirname, "../../../target/debug/dyad-gateway");
const START_MS = 30_000;
const STOP_MS = 10_000;
/** Nothing of the surroundings but what a program needs to run. */
const ENVIRONMENT = { PATH: process.env.PATH, HOME: "/nonexistent" };

export async function startGateway() {
  const directory = await mkdtemp(join(tmpdir(), "dyad-console-"));
  const data = join(directory, "data");
  const log = join(directory, "log");
  const child = spawn(
    BINARY,
    ["up", "--listen", "127.0.0.1:0", "--json", "--no-discovery", "--no-runner", "--data-dir", data],
    { env: { ...ENVIRONMENT, RUST_LOG: "info" }, stdio: ["ignore", "pipe", openSync(log, "w")] },
  );
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await ended;
    clearTimeout(timer);
    const said = await readFile(log, "utf8");
    await rm(directory, { recursive: true });
    return said;
  };
  try {
    const ready = await Promise.race([
      readyEvent(child),
      ended.then(async (code) => {
        throw new Error(
          `the gateway ended with ${code} before it was ready:\n${await readFile(log, "utf8")}`,
        );
      }),
      tooLate(START_MS, "the gateway was not ready in time"),
    ]);
    const url = new URL(ready.base_url).origin;
    const token = (role) => adminToken(data, role);
    return { url, token, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function readyEvent(child) {
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line);
    if (event.event === "ready") {
      child.stdout.resume();
      return event;
    }
  }
  // It has ended: whoever waits for that says why.
  return new Promise(() => {});
}

async function adminToken(data, role) {
  const args = ["admin", "token", "--role", role, "--actor", `${role}@example.com`, "--data-dir", data];
  const { stdout } = await promisify(execFile)(BINARY, args, { env: ENVIRONMENT, timeout: START_MS });
  return stdout.trim();
}

function tooLate(ms, message) {
  return new Promise((_, reject) => setTimeout(() => reject(new Error(message)), ms).unref());
}

/** A request to the administration API; throws if it is refused. */
export async function administrate(url, token, method, path, body) {
  const response = await fetch(`${url}/admin${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(START_MS),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}

/** A chat with an API key; answers `{status, body}`. */
export async function chat(url, key, model) {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] }),
    signal: AbortSignal.timeout(START_MS),
  });
  return { status: response.status, body: await response.json() };
}

/** Asks again until `wanted` is so, at most for `ms`. For what the gateway promises to do within a bound. */
export async function eventually(ms, ask, wanted) {
  const until = Date.now() + ms;
  for (;;) {
    const answer = await ask();
    if (wanted(answer)) return answer;
    if (Date.now() > until)
      throw new Error(`not within ${ms} ms; the last answer was ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
