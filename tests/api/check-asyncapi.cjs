// Reads an AsyncAPI document with the reference parser; errors and warnings end with status 1. Nothing is fetched.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

const file = process.argv[2];
new Parser().parse(readFileSync(file, "utf8")).then(({ document, diagnostics }) => {
  // 0 is an error, 1 a warning; "there is a newer version of the specification" is information.
  const bad = diagnostics.filter((diagnostic) => diagnostic.severity <= 1);
  for (const { path, message } of bad) console.error(`${file}: ${path.join(".")}: ${message}`);
  if (document === undefined || bad.length > 0) process.exit(1);
  console.log(`${file}: ${document.channels().all().length} channels, ${document.messages().all().length} messages, no finding`);
});
