// A hand-operated client of the sockets: connect as a device, a player or an admin, send messages, see the answers.

import { h, replace } from "./dom.js";
import { t } from "./i18n.js";

const KEEP = 200;

/** What each kind of client may say, with values that make sense at once. */
const MESSAGES = {
  device: {
    heartbeat: () => ({ type: "heartbeat", device_code: id.value, timestamp: Math.round(performance.now()) }),
    status_update: () => ({ type: "status_update", status: "ready", device_code: id.value }),
    poll_commands: () => ({ type: "poll_commands", device_code: id.value, current_session: "", status: "idle" }),
    sensor_data: () => ({ type: "sensor_data", sensor_type: "wrist", data: { acc: [0.01, -0.02, 0.98], gyro: [1.5, 2.25, -3], angle: [10, 20, 30] }, timestamp: Date.now() }),
    batch_sensor_data: () => ({
      type: "batch_sensor_data", device_code: id.value, sensor_type: "wrist", timestamp: Math.round(performance.now()),
      data: [0, 5, 10].map((ms) => ({ acc: [0.01, -0.02, 0.98], gyro: [1.5, 2.25, -3], angle: [10, 20, 30], sensor_id: 3, timestamp: Date.now() + ms })),
    }),
    upload_complete: () => ({ type: "upload_complete", session_id: "1", device_code: id.value, timestamp: Math.round(performance.now()) }),
  },
  player: { session_status: () => ({ type: "session_status", session_id: "1" }) },
  admin: { get_system_status: () => ({ type: "get_system_status" }), get_device_list: () => ({ type: "get_device_list" }) },
  root: { hello: () => ({ hello: "anybody there?" }) },
};

const path = () =>
  ({ device: `/ws/esp32/${id.value}/`, player: `/ws/miniprogram/${id.value}/`, admin: "/ws/admin/", root: "/" })[kind.value] +
  (token.value ? `?token=${token.value}` : "");

let socket = null;
const kind = h("select", { id: "kind", onchange: () => drawMessages() }, ...Object.keys(MESSAGES).map((name) => h("option", { value: name }, name)));
const id = h("input", { id: "id", value: "2025001", maxlength: 64 });
const token = h("input", { id: "token", autocomplete: "off", maxlength: 100 });
const text = h("textarea", { id: "message", rows: 8, spellcheck: "false", "aria-label": t("message") });
const lines = h("ol.wire");
const presets = h("p");
const connectButton = h("button", { type: "button", onclick: () => (socket ? socket.close() : connect()) }, t("connect"));
const sendButton = h("button", { type: "button", disabled: true, onclick: () => send() }, t("send"));

function log(direction, what) {
  lines.prepend(h(`li.${direction}`, null, h("time", null, new Date().toLocaleTimeString()), ` ${direction === "out" ? "→" : direction === "in" ? "←" : "·"} `, h("code", null, what)));
  while (lines.children.length > KEEP) lines.lastChild.remove();
}

function connect() {
  const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path()}`;
  socket = new WebSocket(address);
  connectButton.textContent = t("disconnect");
  socket.onopen = () => {
    sendButton.disabled = false;
    log("note", `${t("connected")}: ${path().split("?")[0]}`);
  };
  socket.onmessage = ({ data }) => log("in", data);
  socket.onclose = ({ code, reason }) => {
    socket = null;
    sendButton.disabled = true;
    connectButton.textContent = t("connect");
    log("note", `${t("closed")}: ${code} ${reason}`);
  };
}

function send() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  socket.send(text.value);
  log("out", text.value);
}

function drawMessages() {
  const messages = MESSAGES[kind.value];
  replace(
    presets,
    ...Object.entries(messages).map(([name, make]) =>
      h("button", { type: "button", onclick: () => { text.value = JSON.stringify(make(), null, 1).replace(/\n */g, " "); } }, name),
    ),
  );
  Object.values(messages)[0] && (text.value = JSON.stringify(Object.values(messages)[0]()));
}

document.getElementById("page").append(
  h(
    "section", null,
    h("h1", null, t("socket_test")),
    h("p", null, h("label", { for: "kind" }, t("connect_as")), " ", kind, " ", h("label", { for: "id" }, t("code_or_id")), " ", id, " ", h("label", { for: "token" }, t("token")), " ", token, " ", connectButton),
    presets,
    text,
    h("p", null, sendButton),
    lines,
  ),
);
drawMessages();
