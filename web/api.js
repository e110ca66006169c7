// The server's routes. Every failure is an Error with `code`, and `position` and `hint` where the server gives them.

import { t } from "./i18n.js";

/** Server clock minus this machine's, ms; ages are counted on the server's clock. */
let skewMs = 0;

export const nowUs = () => (Date.now() + skewMs) * 1000;

async function failure(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Not ours: a proxy's page. The status is all there is.
  }
  const error = new Error(problem.detail ?? `${t("server_says")} ${response.status}`);
  return Object.assign(error, { code: problem.code, position: problem.position, hint: problem.hint });
}

export async function get(path) {
  let response;
  try {
    response = await fetch(path, { headers: { accept: "application/json" } });
  } catch {
    throw Object.assign(new Error(t("unreachable")), { code: "unreachable" });
  }
  if (!response.ok) throw await failure(response);
  const body = await response.json();
  if (typeof body.now_us === "number") skewMs = body.now_us / 1000 - Date.now();
  return body;
}

/** Changes something; the answer, if there is one. */
export async function send(method, path, body) {
  let response;
  try {
    response = await fetch(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    throw Object.assign(new Error(t("unreachable")), { code: "unreachable" });
  }
  if (!response.ok) throw await failure(response);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** Logs an admin in; the server sets the cookie. */
export const login = (name, password) => send("POST", "/api/v2/login", { name, password });

async function post(query, format, signal) {
  const response = await fetch("/api/v2/sql", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ query, format }),
    signal,
  });
  if (!response.ok) throw await failure(response);
  return response;
}

/** The first `limit` rows of a statement as objects; `more` if there are others, which are then not made. */
export async function sql(query, limit, outerSignal) {
  const stop = new AbortController();
  outerSignal?.addEventListener("abort", () => stop.abort());
  const response = await post(query, "jsonl", stop.signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const rows = [];
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (rows.length === limit) {
        // The server ends the statement when the answer is not read on.
        stop.abort();
        return { rows, more: true };
      }
      rows.push(JSON.parse(line));
    }
    if (done) return { rows, more: false };
  }
}

/** The whole answer as CSV, for saving. */
export async function csv(query) {
  return (await post(query, "csv")).blob();
}
