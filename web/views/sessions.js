// The sessions, newest first.

import { get, nowUs } from "../api.js";
import { h, replace, table } from "../dom.js";
import { count, span, t, when } from "../i18n.js";

export const STEPS = ["calibrating", "collecting", "stopping", "analyzing", "completed"];

export function sessions(page) {
  const rows = h("div");
  page.append(h("section", null, h("h2", null, t("sessions")), rows));
  return {
    async refresh() {
      const found = await get("/api/v2/sessions?limit=500");
      replace(rows, list(found.sessions));
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
    [t("session"), t("device"), t("status"), t("started"), { n: t("duration") }, { n: t("frames") }, ""],
    found.map((session) => [
      h("a.id", { href: `#/sessions/${session.session_id}` }, `${session.session_id}`),
      session.device_code,
      progress(session.status, session.reason),
      when(session.started_at_us),
      { n: lasted(session) },
      { n: count(session.frame_count) },
      session.status === "completed" ? h("a", { href: `/sessions/${session.session_id}/report`, target: "_blank", rel: "noopener" }, t("open_report")) : "",
    ]),
  );
}
