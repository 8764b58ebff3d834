// The administration API: requests with the administrator's token, and answers or errors as it says them.

/** Longer than the longest answer the API promises: a test of a provider, 60 seconds. */
const TIMEOUT_MS = 70_000;

/** What the API refused, in its own words. */
export class ApiError extends Error {
  /** @param status 0 where there was no answer at all. */
  constructor(status, body, requestId) {
    const error = isObject(body) && isObject(body.error) ? body.error : {};
    super(typeof error.message === "string" ? error.message : silent(status));
    this.name = "ApiError";
    this.status = status;
    this.code = typeof error.code === "string" ? error.code : null;
    /** Violations: `{pointer, message}`. */
    this.details = Array.isArray(error.details) ? error.details.filter(isObject) : [];
    this.body = body;
    this.requestId = requestId;
  }
}

const isObject = (value) => typeof value === "object" && value !== null;

const silent = (status) =>
  status === 0
    ? "The gateway does not answer. Is it running, and is the network up?"
    : `The gateway answered with status ${status} and did not say why.`;

/** `path` with the parameters that have a value. */
export function withQuery(path, query = {}) {
  const entries = Object.entries(query).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  return entries.length === 0 ? path : `${path}?${new URLSearchParams(entries)}`;
}

/** Random and unguessable; `crypto.randomUUID` is not there where the page came over plain HTTP. */
export function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Keys for requests that may be sent again: the same as long as the body is the same. */
export class RepeatKey {
  #text = null;
  #key = null;

  for(body) {
    const text = JSON.stringify(body);
    if (text !== this.#text) [this.#text, this.#key] = [text, randomKey()];
    return this.#key;
  }
}

export class Api {
  /** @param refused is called when the token is not accepted (any more). */
  constructor(token, refused, fetcher = (...args) => fetch(...args)) {
    this.token = token;
    this.refused = refused;
    this.fetcher = fetcher;
    /** Of the page that is shown: its requests end when another one is. */
    this.signal = null;
  }

  /** Answers `{status, body, etag, response}`; throws ApiError. */
  async send(
    method,
    path,
    { query, body, ifMatch, repeatKey, accept, type = "application/json", onPage = method === "GET" } = {},
  ) {
    const headers = { authorization: `Bearer ${this.token}`, accept: accept ?? "application/json" };
    if (body !== undefined) headers["content-type"] = type;
    if (ifMatch) headers["if-match"] = ifMatch;
    if (repeatKey) headers["idempotency-key"] = repeatKey;
    const signals = [AbortSignal.timeout(TIMEOUT_MS)];
    // What changes something is not given up because somebody looks elsewhere.
    if (onPage && this.signal) signals.push(this.signal);
    const init = {
      method,
      headers,
      signal: AbortSignal.any(signals),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    };
    if (body !== undefined) init.body = JSON.stringify(body);
    let response, text;
    try {
      response = await this.fetcher(withQuery(path, query), init);
      text = await response.text();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, null, null);
    }
    const answer = (response.headers.get("content-type") ?? "").includes("json") ? parse(text) : text;
    if (!response.ok) {
      const failure = new ApiError(response.status, answer, response.headers.get("x-request-id"));
      if (response.status === 401) this.refused(failure);
      throw failure;
    }
    return { status: response.status, body: answer, etag: response.headers.get("etag"), response };
  }

  get(path, query, options = {}) {
    return this.send("GET", path, { query, ...options });
  }

  post(path, body, options = {}) {
    return this.send("POST", path, { body, ...options });
  }

  put(path, body, options = {}) {
    return this.send("PUT", path, { body, ...options });
  }

  patch(path, body, options = {}) {
    return this.send("PATCH", path, { body, type: "application/merge-patch+json", ...options });
  }

  remove(path, options = {}) {
    return this.send("DELETE", path, options);
  }

  /** The document that describes the API; asked for once. */
  document() {
    this.described ??= this.get("/openapi.json", {}, { onPage: false }).then(({ body }) => body);
    this.described.catch(() => (this.described = undefined));
    return this.described;
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
