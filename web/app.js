// The shell: heading, routes by the fragment of the address, refreshing.

import { h, replace } from "./dom.js";
import { lang, setLang, t } from "./i18n.js";
import * as live from "./live.js";
import { loginView } from "./views/login.js";
import { overview } from "./views/overview.js";
import { session } from "./views/session.js";
import { sessions } from "./views/sessions.js";
import { sql } from "./views/sql.js";

/** How often a view is refreshed if it does not say `everyMs` itself. */
const REFRESH_MS = 2000;
const TICK_MS = 250;

/** Address, view and the page's title. */
const ROUTES = [
  [/^\/$/, overview, () => t("overview")],
  [/^\/sessions$/, sessions, () => t("sessions")],
  [/^\/sessions\/(\d+)$/, session, (id) => `${t("session")} ${id}`],
  [/^\/sql$/, sql, () => t("sql")],
];

const top = document.getElementById("top");
const page = document.getElementById("page");

/** The view that is shown: {refresh, everyMs, event, close}, all optional. */
let view = {};
let refreshing = false;
let refreshedAt = 0;

const path = () => decodeURI(location.hash.slice(1)).split("?")[0] || "/";

function heading() {
  const here = path();
  const link = (target, text) =>
    h("a", { href: `#${target}`, "aria-current": (target === "/" ? here === "/" : here.startsWith(target)) && "page" }, text);
  replace(
    top,
    h(
      "a.brand",
      { href: "#/" },
      h(
        "svg",
        { viewBox: "0 0 32 32", width: 26, height: 26, "aria-hidden": "true" },
        h("path", { d: "M16 20 6 4h20z M16 20 11.5 4 M16 20 20.500 4", fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linejoin": "round" }),
        h("circle", { cx: 16, cy: 24, r: 5, fill: "#e8833a" }),
      ),
      h("b", null, "Volant"),
    ),
    h("nav", null, link("/", t("overview")), link("/sessions", t("sessions")), link("/sql", t("sql"))),
    h("span.socket", { class: live.isConnected() ? "on" : "off", role: "status" }, live.isConnected() ? t("live") : t("not_live")),
    h(
      "button.language",
      {
        type: "button",
        onclick: () => {
          setLang(lang() === "zh" ? "en" : "zh");
          show();
        },
      },
      lang() === "zh" ? "English" : "中文",
    ),
  );
}

function show() {
  view.close?.();
  heading();
  page.replaceChildren();
  window.scrollTo(0, 0);
  for (const [pattern, make, title] of ROUTES) {
    const match = pattern.exec(path());
    if (match) {
      document.title = `${title(...match.slice(1))} · Volant`;
      view = make(page, ...match.slice(1)) ?? {};
      refresh();
      return;
    }
  }
  view = {};
  document.title = "Volant";
  page.append(h("p.empty", null, t("not_found")));
}

async function refresh() {
  if (refreshing || document.hidden || !view.refresh) return;
  refreshing = true;
  refreshedAt = performance.now();
  const mine = view;
  try {
    await mine.refresh();
    if (mine === view) fault(null);
  } catch (error) {
    if (mine !== view) return;
    if (["token_required", "invalid_token", "not_allowed"].includes(error.code)) askForLogin();
    else fault(error.message);
  } finally {
    refreshing = false;
    // The reader went elsewhere meanwhile: what is shown now has waited.
    if (mine !== view) refresh();
  }
}

/** The server wants to know who is here: after the login everything begins anew, the socket too. */
function askForLogin() {
  view.close?.();
  fault(null);
  page.replaceChildren();
  view = loginView(page, () => location.reload());
}

/** A failure stands above the page until the next success; what was shown stays, it was true then. */
function fault(message) {
  document.getElementById("fault")?.remove();
  if (message) page.before(h("p#fault", { role: "alert" }, message));
}

window.addEventListener("hashchange", show);
document.addEventListener("visibilitychange", refresh);
live.listen(() => {
  heading();
  view.event?.();
  refresh();
});
setInterval(() => {
  if (performance.now() - refreshedAt >= (view.everyMs ?? REFRESH_MS)) refresh();
}, TICK_MS);
live.connect();
show();
