// Texts in English and Chinese. A key that is missing in one language shows as the key: tests compare the two tables.

const EN = {
  log_in: "Log in",
  admin_name: "Name",
  password: "Password",
  log_in_how: "Admins are made on the server: volant tokens admin NAME",
  socket_test: "WebSocket test",
  connect_as: "connect as",
  code_or_id: "code or id",
  token: "token",
  connect: "Connect",
  disconnect: "Disconnect",
  closed: "closed",
  send: "Send",
  overview: "Overview",
  sessions: "Sessions",
  sql: "SQL",
  live: "live",
  not_live: "not connected",
  active_sessions: "active sessions",
  total_sessions: "sessions in all",
  total_frames: "frames on disk",
  connected_devices: "devices connected",
  devices: "Devices",
  no_devices: "No device has connected yet. Point one at ws://HOST:PORT/ws/esp32/CODE/, or run volant simulate.",
  connected: "connected",
  not_connected: "not connected",
  last_frame: "last frame",
  last_pong: "last pong",
  never: "never",
  for_: "for",
  ago: "ago",
  round_trip: "round trip",
  firmware: "firmware",
  frames: "frames",
  events: "Live events",
  no_events: "Nothing has happened since this page was opened.",
  recent_sessions: "Recent sessions",
  all_sessions: "All sessions",
  older: "Older ones",
  report: "report",
  message: "message",
  no_sessions: "No session has been started yet.",
  session: "Session",
  device: "device",
  group: "group",
  player: "player",
  status: "status",
  started: "started",
  duration: "duration",
  calibrating: "calibrating",
  collecting: "collecting",
  stopping: "stopping",
  analyzing: "analyzing",
  completed: "completed",
  stopped: "stopped",
  open_report: "Open the report",
  ask_sql: "Ask SQL",
  waveform: "Angular rate, last 10 s",
  waveform_note: "Magnitude of the angular velocity of each sensor, °/s, as it is on disk.",
  strokes: "strokes",
  swings: "swings",
  strokes_by_class: "Strokes by class",
  stroke_timeline: "When they were played",
  strokes_so_far: "Strokes so far",
  strokes_so_far_note: "Told as they are played; the result of the whole session may name some otherwise.",
  drill: "a drill, named together",
  no_strokes: "No stroke was found.",
  what_was_played: "What was played",
  found_as: "found as",
  confidence: "sure",
  unsure: "not sure",
  label: "label",
  number: "no.",
  at: "at",
  no_stroke: "no stroke",
  label_how: "Say what a swing was, and Volant learns this player: one of each stroke helps, five are better.",
  labelled: "labelled",
  labelled_right: "found as labelled",
  learn: "Learn this player",
  learning: "Learning …",
  learned: "Learned from",
  learned_swings: "labelled swings; new sessions of this player are named by",
  rename_older: "Name older sessions anew",
  publish: "Put in place",
  found_again: "found again",
  renamed: "named otherwise",
  failed: "failed",
  scores: "Scores",
  overall: "overall",
  delay: "timing",
  energy: "energy",
  rom: "range of motion",
  not_computed: "not computed",
  chain: "Kinetic chain",
  waist_to_shoulder: "waist → shoulder",
  shoulder_to_wrist: "shoulder → wrist",
  wrist_to_racket: "wrist → racket",
  energy_ratio: "energy ratio",
  issues: "What is wrong with the recording",
  no_issues: "Nothing is wrong with the recording.",
  info: "note",
  warning: "warning",
  error: "error",
  no_analysis_yet: "The result appears here when the upload is complete.",
  waist: "waist",
  shoulder: "shoulder",
  wrist: "wrist",
  racket: "racket",
  unknown: "unknown",
  run: "Run",
  cancel: "Cancel",
  save_csv: "Save as CSV",
  examples: "Examples",
  tables: "Tables",
  rows_in: "rows in",
  row_in: "row in",
  first_rows: "first",
  running: "running…",
  cancelled: "cancelled",
  shortcut: "Ctrl+Enter runs",
  line: "line",
  column: "column",
  unreachable: "the server does not answer",
  server_says: "the server answered with status",
  not_found: "There is no such page.",
  ex_strokes: "Strokes by class and player",
  ex_speed: "Fastest strokes",
  ex_sensors: "Sampling rate of each sensor",
  ex_peaks: "Angular rate second by second",
  ex_gaps: "Gaps over 50 ms",
  ex_devices: "Devices and their frames",
  clear: "clear", drop: "drop", smash: "smash", drive: "drive", lift: "lift", net_shot: "net shot", push: "push",
  kill: "kill", block: "block", short_serve: "short serve", long_serve: "long serve", other: "other",
};

const ZH = {
  log_in: "登录",
  admin_name: "用户名",
  password: "密码",
  log_in_how: "管理员在服务器上创建：volant tokens admin 用户名",
  socket_test: "WebSocket 测试",
  connect_as: "身份",
  code_or_id: "设备码或用户",
  token: "令牌",
  connect: "连接",
  disconnect: "断开",
  closed: "已关闭",
  send: "发送",
  overview: "总览",
  sessions: "训练",
  sql: "SQL",
  live: "实时",
  not_live: "未连接",
  active_sessions: "进行中的训练",
  total_sessions: "训练总数",
  total_frames: "已落盘帧数",
  connected_devices: "在线设备",
  devices: "设备",
  no_devices: "尚无设备连接。将设备指向 ws://主机:端口/ws/esp32/设备码/，或运行 volant simulate。",
  connected: "已连接",
  not_connected: "未连接",
  last_frame: "最近一帧",
  last_pong: "最近心跳",
  never: "从未",
  for_: "持续",
  ago: "前",
  round_trip: "往返",
  firmware: "固件",
  frames: "帧",
  events: "实时事件",
  no_events: "打开本页以来没有事件。",
  recent_sessions: "最近的训练",
  all_sessions: "全部训练",
  older: "更早的训练",
  report: "报告",
  message: "消息",
  no_sessions: "尚未开始任何训练。",
  session: "训练",
  device: "设备",
  group: "设备组",
  player: "球员",
  status: "状态",
  started: "开始",
  duration: "时长",
  calibrating: "校准中",
  collecting: "采集中",
  stopping: "停止中",
  analyzing: "分析中",
  completed: "已完成",
  stopped: "已终止",
  open_report: "打开报告",
  ask_sql: "用 SQL 查询",
  waveform: "角速度（最近 10 秒）",
  waveform_note: "各传感器角速度的大小（°/s），取自已落盘的数据。",
  strokes: "击球",
  swings: "挥拍",
  strokes_by_class: "各类击球",
  stroke_timeline: "击球时刻",
  strokes_so_far: "已识别击球",
  strokes_so_far_note: "实时识别；整场分析后个别击球可能更正。",
  drill: "连续练习，合并识别",
  no_strokes: "未检测到击球。",
  what_was_played: "实际击球",
  found_as: "识别为",
  confidence: "置信度",
  unsure: "不确定",
  label: "标注",
  number: "序号",
  at: "时刻",
  no_stroke: "非击球",
  label_how: "为击球标注实际类型，系统即可学习该球员：每类一次已有帮助，五次更佳。",
  labelled: "已标注",
  labelled_right: "识别一致",
  learn: "学习该球员",
  learning: "学习中……",
  learned: "已学习",
  learned_swings: "次标注；该球员的新训练将由此流程命名：",
  rename_older: "重新识别以往训练",
  publish: "采用",
  found_again: "再次检出",
  renamed: "名称有变",
  failed: "失败",
  scores: "评分",
  overall: "总分",
  delay: "时序",
  energy: "能量",
  rom: "活动幅度",
  not_computed: "未计算",
  chain: "动力链",
  waist_to_shoulder: "腰 → 肩",
  shoulder_to_wrist: "肩 → 腕",
  wrist_to_racket: "腕 → 球拍",
  energy_ratio: "能量比",
  issues: "记录中的问题",
  no_issues: "记录没有问题。",
  info: "提示",
  warning: "警告",
  error: "错误",
  no_analysis_yet: "上传完成后，结果会显示在这里。",
  waist: "腰",
  shoulder: "肩",
  wrist: "腕",
  racket: "球拍",
  unknown: "未知",
  run: "运行",
  cancel: "取消",
  save_csv: "保存为 CSV",
  examples: "示例",
  tables: "数据表",
  rows_in: "行，用时",
  row_in: "行，用时",
  first_rows: "前",
  running: "运行中…",
  cancelled: "已取消",
  shortcut: "Ctrl+Enter 运行",
  line: "行",
  column: "列",
  unreachable: "服务器没有响应",
  server_says: "服务器返回状态",
  not_found: "没有这个页面。",
  ex_strokes: "各球员各类击球",
  ex_speed: "最快的击球",
  ex_sensors: "各传感器采样率",
  ex_peaks: "逐秒角速度",
  ex_gaps: "超过 50 毫秒的间断",
  ex_devices: "设备及其帧数",
  clear: "高远球", drop: "吊球", smash: "杀球", drive: "平抽球", lift: "挑球", net_shot: "搓球", push: "推球",
  kill: "扑球", block: "挡网", short_serve: "发短球", long_serve: "发高远球", other: "其他",
};

const TABLES = { en: EN, zh: ZH };
const KEY = "volant.language";

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

let language = stored() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
if (!(language in TABLES)) language = "en";

export const lang = () => language;

export function setLang(next) {
  language = next;
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // A browser that keeps nothing keeps no language either.
  }
}

setLang(language);

export const t = (key) => TABLES[language][key] ?? key;

/** A stroke class or sensor in the reader's language; a model's own class stays as it is. */
export const word = (name) => TABLES[language][name] ?? name;

const locale = () => (language === "zh" ? "zh-CN" : "en-GB");

export const count = (value) => new Intl.NumberFormat(locale()).format(value);

export const fixed = (value, digits) =>
  value === null || value === undefined ? "–" : value.toLocaleString(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits });

export const when = (us) =>
  new Date(us / 1000).toLocaleString(locale(), { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const timeOfDay = (date) => date.toLocaleTimeString(locale(), { hour12: false });

/** A span in the largest two units that matter. */
export function span(us) {
  const zh = language === "zh";
  const s = Math.max(0, us) / 1e6;
  const unit = (value, en, cn) => `${value} ${zh ? cn : en}`;
  if (s < 9.95) return unit(s.toFixed(1), "s", "秒");
  if (s < 60) return unit(Math.floor(s), "s", "秒");
  if (s < 3600) return unit(Math.floor(s / 60), "min", "分") + " " + unit(Math.floor(s % 60), "s", "秒");
  if (s < 86400) return unit(Math.floor(s / 3600), "h", "小时") + " " + unit(Math.floor((s % 3600) / 60), "min", "分");
  return unit(Math.floor(s / 86400), "d", "天") + " " + unit(Math.floor((s % 86400) / 3600), "h", "小时");
}

export const ago = (us) => (language === "zh" ? `${span(us)}${t("ago")}` : `${span(us)} ${t("ago")}`);
