// A real service in a folder of its own, and pages on it that may not complain.
const { spawn, execFileSync } = require("node:child_process");
const { once } = require("node:events");
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { createInterface } = require("node:readline");
const { expect, test: base } = require("@playwright/test");

const PROGRAM = process.env.VOLANT_BIN;

class Service {
  constructor(folder) {
    this.folder = folder;
    this.listen = "127.0.0.1:0";
  }

  async start(...flags) {
    this.process = spawn(PROGRAM, ["serve", "--listen", this.listen, "--data-dir", join(this.folder, "data"), ...flags], { stdio: ["ignore", "pipe", "ignore"] });
    const [line] = await once(createInterface(this.process.stdout), "line");
    this.url = line.replace("listening on ", "");
    // Started again, it is where it was.
    this.listen = new URL(this.url).host;
  }

  async stop() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill();
    await once(this.process, "exit");
  }

  /** Simulated devices and their players; generated sessions. Returns when all is analysed, or the process that plays. */
  play(...flags) {
    execFileSync(PROGRAM, ["simulate", "--url", this.url, "--speed", "max", ...flags], { stdio: "ignore" });
  }

  playing(...flags) {
    return spawn(PROGRAM, ["simulate", "--url", this.url, ...flags], { stdio: "ignore" });
  }

  command(args, input) {
    return execFileSync(PROGRAM, [...args, "--data-dir", join(this.folder, "data")], { input }).toString();
  }

  async json(path, body) {
    const order = body === undefined ? undefined : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
    const response = await fetch(this.url + path, order);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }
}

async function withService(use) {
  const folder = mkdtempSync(join(tmpdir(), "volant-browser-"));
  const service = new Service(folder);
  try {
    await use(service);
  } finally {
    if (service.process) await service.stop();
    rmSync(folder, { recursive: true });
  }
}

/**
 * `service`: three sessions of one player, shared by the tests that change nothing in it. `own`: an empty one, not started.
 * `page`: fails its test at an error of a script, a failed request or one to another host; a test that causes some names them in
 * `expected`, and those alone are passed over.
 */
const test = base.extend({
  service: [
    async ({}, use) =>
      withService(async (service) => {
        await service.start();
        for (const seed of ["1", "2", "3"]) service.play("--duration", "40", "--seed", seed);
        await use(service);
      }),
    { scope: "worker", timeout: 120_000 },
  ],
  own: async ({}, use) => withService(use),
  expected: async ({}, use) => use([]),
  page: async ({ page, expected }, use) => {
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(`script: ${error.stack}`));
    page.on("console", (message) => message.type() === "error" && complaints.push(`console: ${message.text()}`));
    page.on("request", (request) => {
      const { hostname, protocol } = new URL(request.url());
      if (hostname !== "127.0.0.1" && !["data:", "blob:"].includes(protocol)) complaints.push(`another host: ${request.url()}`);
    });
    await use(page);
    expect(complaints.filter((complaint) => !expected.some((pattern) => pattern.test(complaint)))).toEqual([]);
  },
});

module.exports = { expect, test };
