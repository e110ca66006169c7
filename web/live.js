// The admin socket: what happens, as it happens. Reconnects by itself, waiting longer each time, 15 s at most.

const KEEP = 60;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

/** Swings of a session that are remembered while it records. */
const KEEP_SWINGS = 500;
const KEEP_SESSIONS = 20;

export const events = [];
/** Session to its swings, as told while it records, the newest first. */
export const swings = new Map();
let connected = false;
let waitMs = FIRST_WAIT_MS;
const listeners = new Set();

export const isConnected = () => connected;

/** Calls `listener` on every event and change of the connection; returns how to stop that. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = (event) => listeners.forEach((listener) => listener(event));

function takeSwing(message) {
  const told = swings.get(message.session_id) ?? [];
  swings.delete(message.session_id);
  swings.set(message.session_id, [message, ...told].slice(0, KEEP_SWINGS));
  if (swings.size > KEEP_SESSIONS) swings.delete(swings.keys().next().value);
  tell(message);
}

function take(message) {
  if (message.type === "swing_detected") return takeSwing(message);
  // Each event comes under two names; the second is for readers of old documents.
  if (message.type !== "system_event") return;
  events.unshift({ ...message, at: new Date() });
  events.length = Math.min(events.length, KEEP);
  tell(message);
}

export function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws/admin/`);
  socket.onopen = () => {
    connected = true;
    waitMs = FIRST_WAIT_MS;
    tell(null);
  };
  socket.onmessage = ({ data }) => {
    try {
      take(JSON.parse(data));
    } catch {
      // Not a message of ours; the next one may be.
    }
  };
  socket.onclose = () => {
    connected = false;
    tell(null);
    setTimeout(connect, waitMs);
    waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
  };
}
