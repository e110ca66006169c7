// One session: while it runs, its signal; when it is done, its figures and the way to the report.

import { get, sql } from "../api.js";
import { h, replace } from "../dom.js";
import { count, fixed, lang, t, when, word } from "../i18n.js";
import { swings } from "../live.js";
import { called, percent } from "../strokes.js";
import { labels } from "./labels.js";
import { tile } from "./overview.js";
import { lasted, progress } from "./sessions.js";

const SENSORS = ["waist", "shoulder", "wrist", "racket"];
const COLORS = { waist: "#FF6384", shoulder: "#36A2EB", wrist: "#FFCE56", racket: "#4BC0C0", unknown: "#999999" };
const WINDOW_S = 10;
/** Plots are drawn as wide as they are shown, so that their words can be read on a phone. */
const PLOT_MAX = 1000;
const BARS_MAX = 520;
/** Between two marks of a time axis, min, and how close they may come, px. */
const MARKS_MIN = [1 / 30, 1 / 6, 0.5, 1, 5, 15, 60];
const MARK_PX = 70;
/** Classes are coloured in the order in which they appear most. */
const PALETTE = ["#3b6e8f", "#e8833a", "#4f9d69", "#a3586d", "#7a68a6", "#b59f3b", "#4aa3a2", "#8c6d5a", "#6b8fd6", "#c06bb0", "#7f8c8d", "#999999"];

export function session(page, id) {
  const head = h("section.session-head");
  const body = h("div");
  page.append(head, body);
  let shownResult = null;
  return {
    everyMs: 1000,
    async refresh() {
      const { session } = await get(`/api/v2/sessions/${id}`);
      replace(head, ...heading(session));
      if (session.status === "completed") {
        if (shownResult === null) {
          const { analysis, analysis_id } = await get(`/api/v2/sessions/${id}/result`);
          const said = analysis.strokes.length ? [await labels(session, analysis.strokes, () => (shownResult = null))] : [];
          body.replaceChildren(...result(analysis, body.clientWidth), ...said);
          shownResult = analysis_id;
        }
        return;
      }
      // A late part of the upload makes a further analysis; its result is read anew.
      shownResult = null;
      const rows = await signal(id);
      const empty = session.status === "stopped" ? null : h("p.empty", null, t("no_analysis_yet"));
      const told = swings.get(Number(id)) ?? [];
      body.replaceChildren(
        ...(rows.length ? [waveform(rows, body.clientWidth)] : []),
        ...(told.length ? [liveStrokes(told)] : []),
        ...(empty ? [empty] : []),
      );
    },
  };
}

function heading(session) {
  const fact = (label, value) => value !== null && value !== undefined && value !== "" && h("span", null, `${t(label)} `, h("b", null, value));
  const query = `SELECT sensor, count(*) AS frames, max(t_ns) / 1e9 AS last_s FROM frames WHERE session_id = ${session.session_id} GROUP BY sensor`;
  return [
    h("h1", null, `${t("session")} ${session.session_id}`),
    h(
      "p.facts",
      null,
      fact("device", session.device_code),
      session.group_code !== session.device_code && fact("group", session.group_code),
      fact("player", session.user_id),
      fact("started", when(session.started_at_us)),
      fact("duration", lasted(session)),
      fact("frames", count(session.frame_count)),
    ),
    h("p.state", null, progress(session.status), session.reason ? h("span.reason", null, session.reason) : ""),
    h(
      "p.actions",
      null,
      session.status === "completed" &&
        h("a.button", { href: `/sessions/${session.session_id}/report?lang=${lang()}`, target: "_blank", rel: "noopener" }, t("open_report")),
      h("a.button.plain", { href: `#/sql?${encodeURIComponent(query)}` }, t("ask_sql")),
    ),
  ];
}

/** The largest angular rate of each sensor in each 1/40 s of the last seconds on disk. */
async function signal(id) {
  const { rows } = await sql(
    `WITH f AS (SELECT sensor, t_s, gyro_norm_dps AS w FROM frames_si WHERE session_id = ${id}),
          e AS (SELECT max(t_s) AS last_s FROM f)
     SELECT sensor, CAST(floor((t_s - last_s) * 40) AS INT) AS slot, max(w) AS w
     FROM f CROSS JOIN e WHERE t_s > last_s - ${WINDOW_S} GROUP BY 1, 2 ORDER BY 1, 2`,
    4000,
  );
  return rows;
}

/** The last strokes as they were told; the result may say otherwise. */
function liveStrokes(told) {
  const row = (swing) => {
    const { name, sure } = called(swing);
    return h("tr", null, h("td.n", null, swing.swing_id), h("td.n", null, `${fixed(swing.impact_ms / 1000, 1)} s`), h("td", null, name), h("td.n", null, percent(sure)));
  };
  return h(
    "section",
    null,
    h("h2", null, `${t("strokes_so_far")}: ${count(told[0].swing_id)}`),
    h("table", null, h("tbody", null, told.slice(0, 12).map(row))),
    h("p.note", null, t("strokes_so_far_note")),
  );
}

function waveform(rows, room) {
  const width = Math.min(PLOT_MAX, room);
  const lane = 84;
  const present = [...SENSORS, "unknown"].filter((sensor) => rows.some((row) => row.sensor === sensor));
  const lanes = present.map((sensor, place) => {
    const mine = rows.filter((row) => row.sensor === sensor && row.w !== null);
    const top = Math.max(100, ...mine.map((row) => row.w));
    const base = (place + 1) * lane - 10;
    const points = mine
      .map((row) => `${(width + (row.slot / (WINDOW_S * 40)) * width).toFixed(1)},${(base - (row.w / top) * (lane - 26)).toFixed(1)}`)
      .join(" ");
    return h(
      "g",
      null,
      h("line.rule", { x1: 0, x2: width, y1: base, y2: base }),
      h("polyline.curve", { points, stroke: COLORS[sensor] }),
      h("text", { x: 4, y: base - lane + 26 }, word(sensor)),
      h("text.end.small", { x: width - 4, y: base - lane + 26 }, `${Math.round(top)} °/s`),
    );
  });
  return h(
    "section",
    null,
    h("h2", null, t("waveform")),
    h("svg.plot", { viewBox: `0 0 ${width} ${present.length * lane}`, role: "img", "aria-label": t("waveform") }, lanes),
    h("p.note", null, t("waveform_note")),
  );
}

function result(analysis, room) {
  const { session, strokes, issues } = analysis;
  const classes = Object.entries(session.stroke_counts).sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  const color = Object.fromEntries(classes.map(([name], place) => [name, PALETTE[place % PALETTE.length]]));
  return [
    h(
      "section.tiles",
      null,
      tile(strokes.length, "swings"),
      tile(session.scores.overall === null || session.scores.overall === undefined ? "–" : fixed(session.scores.overall, 0), "overall"),
      tile(session.frame_count, "frames"),
      tile(`${fixed(session.duration_s, 1)} s`, "duration"),
    ),
    h(
      "div.columns",
      null,
      h(
        "section",
        null,
        h("h2", null, t("strokes_by_class")),
        classes.length ? bars(classes, color, room) : h("p.empty", null, t("no_strokes")),
        (session.drills || []).map((drill) => h("p.note", null, drilled(drill))),
      ),
      h("section", null, h("h2", null, t("scores")), scores(session), h("h2.second", null, t("chain")), chain(session)),
    ),
    strokes.length > 0 && h("section", null, h("h2", null, t("stroke_timeline")), timeline(strokes, session.duration_s, color, room)),
    h("section", null, h("h2", null, t("issues")), faults(issues)),
  ].filter(Boolean);
}

function drilled(drill) {
  const [from, to] = [drill.start_ms, drill.end_ms].map((ms) => fixed(ms / 1e3, 0));
  return `${word(drill.stroke)}: ${t("drill")}, ${from}–${to} s, ${drill.named}/${drill.swings}`;
}

function bars(classes, color, room) {
  const most = classes[0][1];
  const row = 30;
  const label = 120;
  const width = Math.min(BARS_MAX, room);
  return h(
    "svg.plot",
    { viewBox: `0 0 ${width} ${classes.length * row}`, role: "img", "aria-label": t("strokes_by_class") },
    classes.map(([name, n], place) =>
      h(
        "g",
        null,
        h("text.end", { x: label - 10, y: place * row + 20 }, word(name)),
        h("rect", { x: label, y: place * row + 6, width: Math.max(2, (n / most) * (width - label - 50)), height: row - 12, rx: 3, fill: color[name] }),
        h("text", { x: label + (n / most) * (width - label - 50) + 8, y: place * row + 20 }, count(n)),
      ),
    ),
  );
}

const absent = (value) => value === null || value === undefined;

function meter(label, value, digits, unit, part) {
  const width = 200;
  return h(
    "div.meter",
    { class: absent(value) ? "absent" : "" },
    h("span", null, t(label)),
    h(
      "svg",
      { viewBox: `0 0 ${width} 8`, preserveAspectRatio: "none", "aria-hidden": "true" },
      h("rect.track", { width, height: 8, rx: 4 }),
      !absent(value) && h("rect.bar", { width: Math.max(0, Math.min(1, part)) * width, height: 8, rx: 4 }),
    ),
    h("b", null, absent(value) ? t("not_computed") : `${fixed(value, digits)}${unit}`),
  );
}

const scores = (session) =>
  h("div.meters", null, ["overall", "delay", "energy", "rom"].map((name) => meter(name, session.scores[name], 0, "", (session.scores[name] ?? 0) / 100)));

function chain(session) {
  const ms = (seconds) => (absent(seconds) ? null : seconds * 1000);
  const delays = ["waist_to_shoulder", "shoulder_to_wrist", "wrist_to_racket"].map((name) => [name, ms(session.phase_delay[name])]);
  const longest = Math.max(100, ...delays.map(([, value]) => Math.abs(value ?? 0)));
  return h(
    "div.meters",
    null,
    delays.map(([name, value]) => meter(name, value, 0, " ms", Math.abs(value ?? 0) / longest)),
    meter("energy_ratio", session.energy_ratio, 2, "", session.energy_ratio ?? 0),
  );
}

function timeline(strokes, duration_s, color, room) {
  const width = Math.min(PLOT_MAX, room);
  const end = Math.max(duration_s * 1000, ...strokes.map((stroke) => stroke.end_ms));
  const x = (ms) => (ms / end) * width;
  const classes = [...new Set(strokes.map((stroke) => stroke.stroke))];
  const minutes = end / 60_000;
  const step = MARKS_MIN.find((step) => (minutes / step) * MARK_PX <= width) ?? MARKS_MIN.at(-1);
  const marks = Array.from({ length: Math.floor(minutes / step) + 1 }, (_, place) => place * step);
  return h(
    "div",
    null,
    h(
      "svg.plot",
      { viewBox: `0 0 ${width} 84`, role: "img", "aria-label": t("stroke_timeline") },
      marks.map((minute) =>
        h(
          "g",
          null,
          h("line.grid", { x1: x(minute * 60_000), x2: x(minute * 60_000), y1: 0, y2: 60 }),
          h(`text.small${minute === 0 ? "" : x(minute * 60_000) > width - 24 ? ".end" : ".mid"}`, { x: x(minute * 60_000), y: 78 }, `${Math.floor(minute)}:${String(Math.round((minute % 1) * 60)).padStart(2, "0")}`),
        ),
      ),
      h("line.rule", { x1: 0, x2: width, y1: 60, y2: 60 }),
      strokes.map((stroke) => {
        const { name, sure } = called(stroke);
        const height = 16 + 40 * (sure ?? 0.5);
        return h(
          "rect",
          { x: x(stroke.start_ms), width: Math.max(2, x(stroke.end_ms) - x(stroke.start_ms)), y: 60 - height, height, rx: 1, fill: color[stroke.stroke] ?? "#999" },
          h("title", null, `${name} ${percent(sure)} · ${(stroke.impact_ms / 1000).toFixed(2)} s`),
        );
      }),
    ),
    h("p.legend", null, classes.map((name) => h("span", null, h("svg", { viewBox: "0 0 10 10", width: 10, height: 10 }, h("rect", { width: 10, height: 10, rx: 2, fill: color[name] ?? "#999" })), word(name)))),
  );
}

function faults(issues) {
  if (!issues.length) return h("p.empty", null, t("no_issues"));
  return h(
    "ul.issues",
    null,
    issues.map((issue) =>
      h(
        "li",
        { class: issue.severity },
        h("b", null, t(issue.severity)),
        issue.sensor ? `${word(issue.sensor)}: ` : "",
        lang() === "zh" ? issue.message_zh : issue.message,
      ),
    ),
  );
}
