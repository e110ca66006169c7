// What is going on: figures, devices with their three facts, events, the newest sessions.

import { get, nowUs } from "../api.js";
import { h, replace } from "../dom.js";
import { ago, count, span, t, timeOfDay } from "../i18n.js";
import { events } from "../live.js";
import { list } from "./sessions.js";

/** A frame is fresh for so long: packets of a streaming device are under 0.1 s apart. */
const FRESH_FRAME_US = 3e6;
/** A pong is fresh for so long: two of the server's pings. */
const FRESH_PONG_US = 45e6;
const RECENT = 8;

export function overview(page) {
  const tiles = h("section.tiles");
  const devices = h("div.devices");
  const feed = h("ol.feed");
  const recent = h("div");
  page.append(
    h("h1.unseen", null, t("overview")),
    tiles,
    h(
      "div.columns",
      null,
      h("section", null, h("h2", null, t("devices")), devices),
      h("section", null, h("h2", null, t("events")), feed),
    ),
    h("section", null, h("h2", null, t("recent_sessions"), h("a.more", { href: "#/sessions" }, t("all_sessions"))), recent),
  );
  const showFeed = () => replace(feed, ...(events.length ? events.map(line) : [h("li.empty", null, t("no_events"))]));
  showFeed();
  return {
    event: showFeed,
    async refresh() {
      const [status, found, newest] = await Promise.all([
        get("/api/v2/status"),
        get("/api/v2/devices"),
        get(`/api/v2/sessions?limit=${RECENT}`),
      ]);
      replace(
        tiles,
        tile(status.active_sessions, "active_sessions"),
        tile(status.connected_devices, "connected_devices"),
        tile(status.total_sessions, "total_sessions"),
        tile(status.total_frames, "total_frames"),
      );
      // Those that are there first, then those that were there last.
      const shown = found.devices.sort(
        (a, b) => !!b.presence - !!a.presence || (b.last_seen_us ?? 0) - (a.last_seen_us ?? 0),
      );
      replace(devices, ...(shown.length ? shown.map(device) : [h("p.empty", null, t("no_devices"))]));
      replace(recent, list(newest.sessions));
    },
  };
}

export const tile = (value, label) =>
  h("div.tile", null, h("b", null, typeof value === "number" ? count(value) : value), h("span", null, t(label)));

/** Three facts, each with its age; none is derived from another. */
function device({ device_code, firmware, frame_count, last_seen_us, presence }) {
  const now = nowUs();
  const lastFrame = presence?.last_frame_us ?? last_seen_us;
  const age = (us) => (us ? ago(now - us) : t("never"));
  const fact = (label, value, state, title) =>
    h("div.fact", { class: state, title }, h("span", null, t(label)), h("b", null, value));
  return h(
    "article.device",
    null,
    h(
      "header",
      null,
      h("h3", null, device_code),
      h("span", null, [firmware && `${t("firmware")} ${firmware}`, `${count(frame_count)} ${t("frames")}`].filter(Boolean).join(" · ")),
    ),
    h(
      "div.facts",
      null,
      presence
        ? fact("connected", span(now - presence.connected_since_us), "good")
        : fact("not_connected", "–", "idle"),
      fact("last_frame", age(lastFrame), lastFrame && now - lastFrame < FRESH_FRAME_US ? "good" : "idle"),
      fact(
        "last_pong",
        // A connection that is gone has taken its pongs with it.
        presence ? age(presence.last_pong_us) : "–",
        !presence ? "idle" : presence.last_pong_us && now - presence.last_pong_us < FRESH_PONG_US ? "good" : "late",
        presence?.round_trip_us ? `${t("round_trip")} ${(presence.round_trip_us / 1000).toFixed(1)} ms` : undefined,
      ),
    ),
  );
}

function line(event) {
  const about = event.session_id ? h("a", { href: `#/sessions/${event.session_id}` }, event.event) : event.event;
  return h("li", { class: event.level }, h("time", null, timeOfDay(event.at)), h("span", null, about));
}
