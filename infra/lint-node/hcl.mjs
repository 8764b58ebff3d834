// Reads Terraform's files with HashiCorp's own parser.
import { readFileSync } from "node:fs";
import { parse } from "@cdktf/hcl2json";

for (const path of process.argv.slice(2)) {
  try {
    await parse(path, readFileSync(path, "utf8"));
  } catch (error) {
    console.log(`${path}: ${error.message}`);
    process.exitCode = 1;
  }
}
