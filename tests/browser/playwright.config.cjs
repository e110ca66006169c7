// One service at a time and one page at a time: two cores carry no more.
module.exports = {
  testDir: __dirname,
  testMatch: "*.spec.cjs",
  outputDir: process.env.BROWSER_OUTPUT,
  workers: 1,
  retries: 0,
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: "list",
  use: {
    locale: "en-GB",
    timezoneId: "UTC",
    viewport: { width: 1100, height: 900 },
    screenshot: "only-on-failure",
    launchOptions: { executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] },
  },
};
