// Questions in SQL, answered by POST /api/v2/sql.

import { csv, sql as ask } from "../api.js";
import { h, table } from "../dom.js";
import { count, t } from "../i18n.js";

const SHOWN_ROWS = 500;

const EXAMPLES = [
  ["ex_strokes", "SELECT stroke, user_id, count(*) AS n, round(avg(confidence), 2) AS confidence,\n       round(max(peak_gyro_dps)) AS peak_dps\nFROM strokes\nGROUP BY stroke, user_id\nORDER BY n DESC"],
  ["ex_speed", "SELECT session_id, stroke, round(impact_ns / 1e9, 2) AS at_s,\n       round(racket_head_speed_mps, 1) AS racket_mps, round(peak_gyro_dps) AS peak_dps\nFROM strokes\nORDER BY peak_gyro_dps DESC\nLIMIT 20"],
  ["ex_sensors", "SELECT session_id, sensor, count(*) AS frames,\n       round((count(*) - 1) / ((max(t_ns) - min(t_ns)) / 1e9), 1) AS rate_hz\nFROM frames\nGROUP BY session_id, sensor\nHAVING count(*) > 1\nORDER BY session_id DESC, sensor"],
  ["ex_peaks", "SELECT session_id, CAST(floor(t_s) AS INT) AS second, round(max(gyro_norm_dps)) AS peak_dps\nFROM frames_si\nWHERE sensor = 'racket'\nGROUP BY 1, 2\nORDER BY 1 DESC, 2\nLIMIT 200"],
  ["ex_gaps", "SELECT session_id, sensor, t_ns / 1e9 AS at_s, gap_ms\nFROM (\n  SELECT session_id, sensor, t_ns,\n         (t_ns - lag(t_ns) OVER (PARTITION BY session_id, sensor ORDER BY t_ns)) / 1e6 AS gap_ms\n  FROM frames\n)\nWHERE gap_ms > 50\nORDER BY gap_ms DESC\nLIMIT 50"],
  ["ex_devices", "SELECT device_code, frame_count, connected,\n       to_timestamp_micros(last_seen_us) AS last_seen\nFROM devices\nORDER BY last_seen_us DESC"],
];

/** What was typed last, kept while the page is open. */
let draft = EXAMPLES[0][1];

export function sql(page) {
  const given = location.hash.split("?")[1];
  if (given) draft = decodeURIComponent(given);
  let running = null;
  const text = h("textarea", {
    spellcheck: "false",
    rows: "9",
    "aria-label": "SQL",
    value: draft,
    oninput: () => (draft = text.value),
    onkeydown: (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        run();
      }
    },
  });
  const button = h("button.button", { type: "button", onclick: () => (running ? running.abort() : run()) }, t("run"));
  const save = h("button.button.plain", { type: "button", onclick: saveCsv }, t("save_csv"));
  const state = h("span.state", { role: "status" }, t("shortcut"));
  const answer = h("div.answer");
  const tables = h("div.schema");
  page.append(
    h("h1.unseen", null, t("sql")),
    h(
      "div.workbench",
      null,
      h("section", null, text, h("div.toolbar", null, button, save, state), answer),
      h(
        "aside",
        null,
        h("h2", null, t("examples")),
        h("ul.examples", null, EXAMPLES.map(([name, example]) => h("li", null, h("button", { type: "button", onclick: () => fill(example) }, t(name))))),
        h("h2", null, t("tables")),
        tables,
      ),
    ),
  );
  showTables(tables);

  function fill(example) {
    text.value = draft = example;
    run();
  }

  async function run() {
    running?.abort();
    const mine = (running = new AbortController());
    button.textContent = t("cancel");
    state.textContent = t("running");
    const started = performance.now();
    try {
      const { rows, more } = await ask(text.value, SHOWN_ROWS, mine.signal);
      const seconds = ((performance.now() - started) / 1000).toFixed(2);
      state.textContent = `${more ? `${t("first_rows")} ` : ""}${count(rows.length)} ${t(rows.length === 1 ? "row_in" : "rows_in")} ${seconds} s`;
      answer.replaceChildren(rows.length ? grid(rows) : "");
    } catch (error) {
      state.textContent = mine.signal.aborted ? t("cancelled") : "";
      if (!mine.signal.aborted) answer.replaceChildren(complaint(error));
    } finally {
      if (running === mine) {
        running = null;
        button.textContent = t("run");
      }
    }
  }

  async function saveCsv() {
    state.textContent = t("running");
    try {
      const url = URL.createObjectURL(await csv(text.value));
      h("a", { href: url, download: "volant.csv" }).click();
      URL.revokeObjectURL(url);
      state.textContent = "";
    } catch (error) {
      state.textContent = "";
      answer.replaceChildren(complaint(error));
    }
  }

  function complaint(error) {
    if (error.position) select(error.position);
    return h("div.complaint", { role: "alert" }, h("p", null, error.message), error.hint ? h("p.note", null, error.hint) : "");
  }

  /** Puts the cursor where the server says that the mistake is. */
  function select({ line, column }) {
    const lines = text.value.split("\n").slice(0, line - 1);
    const place = lines.join("\n").length + (lines.length ? 1 : 0) + column - 1;
    const word = /^\w*/.exec(text.value.slice(place))[0].length;
    text.focus();
    text.setSelectionRange(place, place + Math.max(1, word));
  }

  if (given) run();
  return { close: () => running?.abort() };
}

function grid(rows) {
  const names = Object.keys(rows[0]);
  const number = names.map((name) => rows.some((row) => typeof row[name] === "number"));
  const cell = (value, right) => {
    const content = value === null ? h("i.null", null, "null") : typeof value === "object" ? JSON.stringify(value) : String(value);
    return right ? { n: content } : content;
  };
  // A plan is text with lines of its own.
  if (names.join() === "plan_type,plan") return h("div", null, rows.map((row) => h("pre", null, `-- ${row.plan_type}\n${row.plan}`)));
  return table(
    names.map((name, place) => (number[place] ? { n: name } : name)),
    rows.map((row) => names.map((name, place) => cell(row[name], number[place]))),
    { class: "answer-grid" },
  );
}

async function showTables(parent) {
  const { rows } = await ask(
    "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
    1000,
  ).catch(() => ({ rows: [] }));
  const byTable = Map.groupBy ? Map.groupBy(rows, (row) => row.table_name) : group(rows);
  for (const [name, columns] of byTable) {
    parent.append(
      h(
        "details",
        null,
        h("summary", null, name),
        h("ul", null, columns.map((column) => h("li", null, column.column_name, h("small", null, column.data_type.toLowerCase())))),
      ),
    );
  }
}

function group(rows) {
  const found = new Map();
  for (const row of rows) found.set(row.table_name, [...(found.get(row.table_name) ?? []), row]);
  return found;
}
