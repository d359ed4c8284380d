// Proves that the type check can fail: a component with a known mistake must be refused.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const folder = mkdtempSync(join(import.meta.dirname, "canary-"));
try {
  writeFileSync(join(folder, "Canary.svelte"), '<script lang="ts">const n: number = "text";</script>{n}\n');
  writeFileSync(join(folder, "tsconfig.json"), '{"extends":"../../tsconfig.json","include":["."]}\n');
  const args = ["svelte-check", "--workspace", folder, "--tsconfig", join(folder, "tsconfig.json")];
  let output = "";
  try {
    execFileSync("npx", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    output = error.stdout;
  }
  if (!output.includes("Type 'string' is not assignable to type 'number'")) {
    console.error(`svelte-check let a wrong type pass:\n${output}`);
    process.exit(1);
  }
} finally {
  rmSync(folder, { recursive: true });
}
