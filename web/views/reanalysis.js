// A player's older sessions by the pipeline that learned the player: analysed beside what is published, compared, put in its place.

import { get, send } from "../api.js";
import { h } from "../dom.js";
import { count, t } from "../i18n.js";

const LOOK_MS = 300;
const PAGE = 200;

/** A button that analyses; then what would change, and a button that publishes it. `published` is called when it is. */
export function reanalysis(user, pipeline, published) {
  const path = `/api/v2/pipelines/${encodeURIComponent(pipeline)}`;
  const state = h("span.note", { role: "status" });
  const analyze = h("button.button.plain", { type: "button", onclick: () => step(analyze, compare) }, t("rename_older"));
  const publish = h("button.button", { type: "button", onclick: () => step(publish, put) }, t("publish"));
  const place = h("p.actions", null, analyze, state);

  async function step(button, act) {
    button.disabled = true;
    try {
      await act();
    } catch (error) {
      state.textContent = error.message;
    }
    button.disabled = false;
  }

  /** Until no session is in one of these states, or the reader has left. */
  async function wait(of, states) {
    for (;;) {
      const found = await get(`${path}/analyses?limit=1`);
      const open = states.reduce((sum, name) => sum + (found.states[name] ?? 0), 0);
      if (!open || !place.isConnected) return;
      state.textContent = `${count(Math.max(0, of - open))} / ${count(of)}`;
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
  }

  async function compare() {
    const { sessions } = await send("POST", `${path}/analyses`, { user_id: user });
    await wait(sessions, ["queued", "running"]);
    const sum = { sessions: 0, failed: 0, published: 0, common: 0, renamed: 0, unpublished: 0 };
    for (let after = 0; ; ) {
      const { candidates } = await get(`${path}/analyses?after=${after}&limit=${PAGE}`);
      if (!candidates.length) break;
      for (const candidate of candidates) {
        sum.sessions += 1;
        sum.failed += candidate.state === "failed";
        sum.unpublished += candidate.state === "done" && candidate.published_at_us === null;
        sum.published += candidate.published_strokes ?? 0;
        sum.common += candidate.common_strokes ?? 0;
        sum.renamed += candidate.renamed_strokes ?? 0;
      }
      after = candidates.at(-1).session_id;
    }
    state.textContent = [
      `${t("sessions")}: ${count(sum.sessions)}`,
      `${t("strokes")}: ${count(sum.published)}`,
      `${t("found_again")}: ${count(sum.common)}`,
      `${t("renamed")}: ${count(sum.renamed)}`,
      sum.failed ? `${t("failed")}: ${count(sum.failed)}` : "",
    ].filter(Boolean).join(" · ");
    if (sum.unpublished) place.append(publish);
    else publish.remove();
  }

  async function put() {
    const { sessions } = await send("POST", `${path}/publish`);
    await wait(sessions, ["switching"]);
    if (place.isConnected) published();
  }

  return place;
}
