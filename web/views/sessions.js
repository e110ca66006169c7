// The sessions, newest first.

import { get, nowUs } from "../api.js";
import { h, replace, table } from "../dom.js";
import { count, span, t, when } from "../i18n.js";

export const STEPS = ["calibrating", "collecting", "stopping", "analyzing", "completed"];

const PAGE = 100;

/** The newest stay fresh; older ones are fetched when they are asked for, and stand as they were then. */
export function sessions(page) {
  const rows = h("div");
  const more = h("button.button.plain", { type: "button", hidden: true, onclick: older }, t("older"));
  const fault = h("p.note", { role: "status" });
  page.append(h("section", null, h("h1", null, t("sessions")), rows, h("p.actions", null, more), fault));
  let newest = [];
  let before = [];

  const fetchPage = async (last) => (await get(`/api/v2/sessions?limit=${PAGE}${last ? `&before=${last.session_id}` : ""}`)).sessions;

  function show(isFull) {
    const seen = new Set(newest.map((session) => session.session_id));
    replace(rows, list([...newest, ...before.filter((session) => !seen.has(session.session_id))]));
    if (isFull !== undefined) more.hidden = !isFull;
  }

  async function older() {
    more.disabled = true;
    fault.textContent = "";
    try {
      const found = await fetchPage(before.at(-1) ?? newest.at(-1));
      before = [...before, ...found];
      show(found.length === PAGE);
    } catch (error) {
      fault.textContent = error.message;
    }
    more.disabled = false;
  }

  return {
    async refresh() {
      const found = await fetchPage();
      // What a new session pushes off the first page is one of the older ones now.
      if (found.length === PAGE) before = [...newest.filter((session) => session.session_id < found.at(-1).session_id), ...before];
      newest = found;
      show(before.length ? undefined : found.length === PAGE);
    },
  };
}

/** The state as a word and as the way it has come. */
export function progress(status, reason) {
  const reached = STEPS.indexOf(status);
  const steps = STEPS.map((step, place) =>
    h("i", { class: status === "stopped" ? "ended" : place < reached || status === "completed" ? "done" : place === reached ? "here" : "" }),
  );
  return h("span.progress", { class: status, title: reason ?? undefined }, h("span.steps", { "aria-hidden": "true" }, steps), t(status));
}

export const lasted = (session) => span((session.ended_at_us ?? nowUs()) - session.started_at_us);

export function list(found) {
  if (!found.length) return h("p.empty", null, t("no_sessions"));
  return table(
    [t("session"), t("device"), t("player"), t("status"), t("started"), { n: t("duration") }, { n: t("frames") }, t("report")],
    found.map((session) => [
      h("a.id", { href: `#/sessions/${session.session_id}` }, `${session.session_id}`),
      session.device_code,
      session.user_id === null ? "–" : `${session.user_id}`,
      progress(session.status, session.reason),
      when(session.started_at_us),
      { n: lasted(session) },
      { n: count(session.frame_count) },
      session.status === "completed" ? h("a", { href: `/sessions/${session.session_id}/report`, target: "_blank", rel: "noopener" }, t("open_report")) : "",
    ]),
  );
}
