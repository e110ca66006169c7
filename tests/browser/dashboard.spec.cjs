// The pages as a reader has them: Chromium on a real service.
const { once } = require("node:events");
const { readFileSync, writeFileSync } = require("node:fs");
const { join } = require("node:path");
const { AxeBuilder } = require("@axe-core/playwright");
const { expect, test } = require("./service.cjs");

const PAGES = {
  overview: "/",
  sessions: "/#/sessions",
  "a session": "/#/sessions/1",
  SQL: `/#/sql?${encodeURIComponent("SELECT stroke, count(*) AS n FROM strokes GROUP BY stroke ORDER BY n DESC")}`,
  report: "/sessions/1/report",
  "the socket test": "/websocket-test/",
};

/** What each page shows when it has come to rest. */
const RESTED = {
  overview: (page) => page.locator(".devices article"),
  sessions: (page) => page.locator("main td a.id"),
  "a session": (page) => page.locator(".labels select"),
  SQL: (page) => page.locator(".answer-grid td"),
  report: (page) => page.locator("svg"),
  "the socket test": (page) => page.locator("main button"),
};

for (const [name, path] of Object.entries(PAGES)) {
  for (const lang of ["en", "zh"]) {
    test(`${name} can be read by everybody, on a phone too, in ${lang}`, async ({ page, service }) => {
      await page.addInitScript((lang) => localStorage.setItem("volant.language", lang), lang);
      const report = name === "report" ? `?lang=${lang}` : "";
      await page.goto(service.url + path + report);
      await expect(RESTED[name](page).first()).toBeVisible();
      await expect(page.locator("html")).toHaveAttribute("lang", lang === "zh" ? "zh-CN" : "en");
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).slice(0, 3).join(" ")}`)).toEqual([]);
      await page.setViewportSize({ width: 360, height: 740 });
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    });
  }
}

test("an empty service says what to do first", async ({ own, page }) => {
  await own.start();
  await page.goto(own.url);
  await expect(page.locator(".devices")).toContainText("volant simulate");
  await expect(page.locator(".tile").first()).toContainText("0");
  await page.getByRole("link", { name: "All sessions" }).click();
  await expect(page.locator("main")).toContainText("No session");
});

test("a drill is told, on the session's page and in its report", async ({ own, page }) => {
  await own.start();
  own.play("--strokes", "smash", "--duration", "60", "--seed", "5");
  await page.goto(`${own.url}/#/sessions/1`);
  const told = page.locator("main p.note", { hasText: /^smash: a drill, named together, \d+–\d+ s, \d+\/\d+$/ });
  await expect(told).toBeVisible();
  await page.goto(`${own.url}/sessions/1/report`);
  await expect(page.locator("p.note", { hasText: "smash over and over from 0:" })).toBeVisible();
});

test("every session of a season can be reached", async ({ own, page }) => {
  const lines = ["recording,sensor,t_ms,ax,ay,az,gx,gy,gz"];
  for (let take = 1; take <= 230; take++) for (let i = 0; i < 4; i++) lines.push(`take-${take},wrist,${i * 20},0,0,1,${take},${i},0`);
  const file = join(own.folder, "season.csv");
  writeFileSync(file, lines.join("\n"));
  own.command(["import", "recordings", file]);
  await own.start();
  await page.goto(`${own.url}/#/sessions`);
  const numbers = page.locator("main td a.id");
  await expect(numbers).toHaveCount(100);
  const older = page.getByRole("button", { name: "Older ones" });
  await older.click();
  await expect(numbers).toHaveCount(200);
  // A new one comes on top, and none is lost below.
  own.play("--duration", "3");
  await expect(numbers).toHaveCount(201);
  await older.click();
  await expect(numbers).toHaveCount(231);
  await expect(older).toBeHidden();
  expect((await numbers.allTextContents()).map(Number)).toEqual(Array.from({ length: 231 }, (_, place) => 231 - place));
});

test("a session is watched from its first frame to its result", async ({ own, page }) => {
  await own.start();
  await page.goto(own.url);
  const device = own.playing("--duration", "24", "--speed", "2", "--device-code", "2025007");
  const ended = once(device, "exit");
  await expect(page.locator(".devices article h3")).toHaveText("2025007");
  await expect(page.locator(".fact.good")).not.toHaveCount(0);
  await expect(page.locator(".feed li a").first()).toBeVisible();
  await page.locator("main td a.id").first().click();
  await expect(page.locator("polyline.curve")).toHaveCount(4);
  const told = page.getByRole("heading", { name: /^Strokes so far: \d+/ });
  await expect(told).toBeVisible();
  const [exit] = await ended;
  expect(exit).toBe(0);
  // The result comes by itself, and says what the files say.
  await expect(page.locator(".tiles")).toBeVisible();
  await expect(told).toHaveCount(0);
  const { analysis } = await own.json("/api/v2/sessions/1/result");
  expect(analysis.strokes.length).toBeGreaterThan(3);
  await expect(page.locator(".tile b").first()).toHaveText(String(analysis.strokes.length));
  await expect(page.locator(".labels tbody tr")).toHaveCount(analysis.strokes.length);
});

test("what was played is said, learned, and older sessions take it over", async ({ own, page }) => {
  await own.start();
  for (const seed of ["1", "3"]) own.play("--duration", "120", "--seed", seed);
  const before = (await own.json("/api/v2/sessions/2/result")).analysis.strokes;
  await page.goto(`${own.url}/#/sessions/2`);
  const choices = page.locator(".labels select");
  await expect(choices).toHaveCount(before.length);
  // This player calls every smash a clear, and every clear a smash.
  const turned = (stroke) => ({ smash: "clear", clear: "smash" })[stroke] ?? stroke;
  for (const [index, { stroke }] of before.entries()) {
    await choices.nth(index).selectOption(turned(stroke));
    await expect(choices.nth(index)).toBeEnabled();
  }
  const right = before.filter(({ stroke }) => turned(stroke) === stroke).length;
  await expect(page.locator(".labels .note").first()).toHaveText(`labelled ${before.length} / ${before.length} · found as labelled ${right}`);
  const kept = (await own.json("/api/v2/sessions/2/labels")).labels;
  expect(kept.map(({ stroke }) => stroke)).toEqual(before.map(({ stroke }) => turned(stroke)));

  await page.getByRole("button", { name: "Learn this player" }).click();
  await expect(page.getByText(`Learned from ${before.length} labelled swings`)).toBeVisible();
  await page.getByRole("button", { name: "Name older sessions anew" }).click();
  const compared = page.getByText(/^sessions: 2 · /i);
  await expect(compared).toBeVisible();
  const renamed = Number(/named otherwise: (\d+)/.exec(await compared.textContent())[1]);
  expect(renamed).toBeGreaterThan(0);
  // Nothing has changed for anybody yet.
  expect((await own.json("/api/v2/sessions/2/result")).analysis.strokes).toEqual(before);
  await page.getByRole("button", { name: "Put in place" }).click();
  await expect(page.getByRole("button", { name: "Put in place" })).toHaveCount(0);
  const after = (await own.json("/api/v2/sessions/2/result")).analysis.strokes;
  const agree = (strokes) => strokes.filter((stroke) => kept.some((label) => Math.abs(label.impact_ms - stroke.impact_ms) < 50 && label.stroke === stroke.stroke)).length;
  expect(agree(after)).toBeGreaterThan(agree(before));
  await expect(page.locator(".labels .note").first()).toContainText(`found as labelled ${agree(after)}`);
});

test("SQL is asked, corrected, cancelled and taken away", async ({ page, service, expected }) => {
  await page.goto(`${service.url}/#/sql`);
  const text = page.getByRole("textbox", { name: "SQL" });
  const state = page.locator(".toolbar .state");
  await expect(page.locator(".schema summary", { hasText: /^strokes$/ })).toBeVisible();
  for (const example of await page.locator(".examples button").all()) {
    await example.click();
    await expect(state).toHaveText(/rows? in/);
    await expect(page.locator(".complaint")).toHaveCount(0);
  }
  // What comes from outside is text.
  await text.fill("SELECT '<img src=x onerror=alert(1)>' AS a, NULL AS b");
  await text.press("Control+Enter");
  await expect(page.locator(".answer-grid td").first()).toHaveText("<img src=x onerror=alert(1)>");
  await expect(page.locator(".answer-grid img")).toHaveCount(0);
  // A mistake is answered where it is.
  expected.push(/400/);
  await text.fill("SELECT session_id\nFROM strokess");
  await text.press("Control+Enter");
  await expect(page.locator(".complaint")).toContainText("strokes");
  expect(await text.evaluate((area) => area.value.slice(area.selectionStart, area.selectionEnd))).toBe("strokess");
  // One that would take for ever.
  await text.fill("SELECT sum(a.t_ns % 7 * b.t_ns % 11 * c.t_ns % 13) FROM frames a, frames b, frames c");
  await page.getByRole("button", { name: "Run" }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(state).toHaveText(/cancelled/i);
  await text.fill("SELECT session_id, count(*) AS n FROM strokes GROUP BY 1 ORDER BY 1");
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: /CSV/ }).click();
  const rows = readFileSync(await (await download).path(), "utf8").trim().split(/\r?\n/);
  expect(rows[0]).toBe("session_id,n");
  expect(rows.length).toBe(4);
});

test("a service that goes away and comes back is told, and seen again", async ({ own, page, expected }) => {
  expected.push(/ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|WebSocket/);
  await own.start();
  await page.goto(own.url);
  const socket = page.locator(".socket");
  await expect(socket).toHaveText("live");
  await own.stop();
  await expect(socket).toHaveText("not connected");
  await expect(page.locator("#fault")).toBeVisible();
  await own.start();
  await expect(socket).toHaveText("live");
  await expect(page.locator("#fault")).toHaveCount(0);
});

test("where callers must say who they are, an admin logs in and out of reach of scripts", async ({ own, page, expected }) => {
  expected.push(/401/, /WebSocket/);
  await own.start("--auth", "token");
  await own.stop();
  own.command(["tokens", "admin", "alice"], "a long password\n");
  await own.start("--auth", "token");
  await page.goto(own.url);
  await page.getByLabel("Name").fill("alice");
  await page.getByLabel("Password").fill("a wrong password");
  await page.getByRole("button", { name: "Log in" }).click();
  await expect(page.locator("form.login [role=alert]")).not.toBeEmpty();
  await page.getByLabel("Password").fill("a long password");
  await page.getByRole("button", { name: "Log in" }).click();
  await expect(page.locator(".tiles")).toBeVisible();
  await expect(page.locator(".socket")).toHaveText("live");
  expect(await page.evaluate(() => document.cookie)).toBe("");
});
