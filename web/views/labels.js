// What was played, said by a person: a table of a session's strokes with a choice beside each, and the way to learn from it.

import { get, send } from "../api.js";
import { h, table } from "../dom.js";
import { count, fixed, t, word } from "../i18n.js";
import { OTHER, called, percent } from "../strokes.js";
import { reanalysis } from "./reanalysis.js";

/** The section of a session that has a result; `republished` is called when that result is another one. */
export async function labels(session, strokes, republished) {
  const path = `/api/v2/sessions/${session.session_id}/labels`;
  const known = (await get(path)).labels;
  const classes = [...new Set([...strokes.flatMap((stroke) => Object.keys(stroke.probabilities ?? {})), ...known.map((label) => label.stroke)])];
  const names = classes.filter((name) => name !== OTHER).sort((a, b) => word(a).localeCompare(word(b)));
  const outcome = h("p.note", { role: "status" });
  const older = h("div");
  const summary = h("p.note");
  const labelled = new Map();
  for (const label of known) if (label.stroke_index !== null) labelled.set(label.stroke_index, label.stroke);

  function summed() {
    const right = [...labelled].filter(([index, name]) => strokes[index]?.stroke === name).length;
    summary.textContent = labelled.size ? `${t("labelled")} ${count(labelled.size)} / ${count(strokes.length)} · ${t("labelled_right")} ${count(right)}` : t("label_how");
  }

  function choice(stroke, index) {
    const option = (value, text) => h("option", { value, selected: value === (labelled.get(index) ?? "") }, text);
    const select = h(
      "select",
      {
        "aria-label": `${t("label")} ${index + 1}`,
        onchange: async () => {
          const name = select.value || null;
          select.disabled = true;
          try {
            await send("POST", path, { labels: [{ impact_ms: stroke.impact_ms, stroke: name }] });
            if (name) labelled.set(index, name);
            else labelled.delete(index);
            outcome.textContent = "";
          } catch (error) {
            select.value = labelled.get(index) ?? "";
            outcome.textContent = error.message;
          }
          select.disabled = false;
          mark(select, stroke, index);
          summed();
        },
      },
      option("", "–"),
      names.map((name) => option(name, word(name))),
      option(OTHER, t("no_stroke")),
    );
    mark(select, stroke, index);
    return select;
  }

  /** Shows whether what was found is what was played. */
  function mark(select, stroke, index) {
    const name = labelled.get(index);
    select.className = name === undefined ? "" : name === stroke.stroke ? "right" : "wrong";
  }

  async function learn(event) {
    const button = event.currentTarget;
    button.disabled = true;
    outcome.textContent = t("learning");
    try {
      const made = await send("POST", `/api/v2/players/${session.user_id}/calibration`, {});
      const swings = Object.values(made.swings).reduce((sum, n) => sum + n, 0);
      outcome.textContent = `${t("learned")} ${count(swings)} ${t("learned_swings")} ${made.pipeline}.`;
      older.replaceChildren(reanalysis(session.user_id, made.pipeline, republished));
    } catch (error) {
      outcome.textContent = error.message;
    }
    button.disabled = false;
  }

  summed();
  const rows = strokes.map((stroke, index) => {
    const { name, sure } = called(stroke);
    return [{ n: count(index + 1) }, { n: `${fixed(stroke.impact_ms / 1000, 2)} s` }, name, { n: percent(sure) }, choice(stroke, index)];
  });
  return h(
    "section.labels",
    null,
    h("h2", null, t("what_was_played")),
    summary,
    table([{ n: t("number") }, { n: t("at") }, t("found_as"), { n: t("confidence") }, t("label")], rows),
    h("p.actions", null, session.user_id !== null && h("button.button", { type: "button", onclick: learn }, t("learn"))),
    outcome,
    older,
  );
}
