// How the page is built, tried out and tested.
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

import { compress } from "./tools/compress.ts";

// A hub beside `npm run dev`; its cookie and its socket go through the development server.
const HUB = process.env["PULSEHUB_URL"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [svelte(), compress()],
  build: {
    target: "es2022",
    // Everything is a file of its own: the policy of the page allows no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: {
      "/api": HUB,
      "/readyz": HUB,
      "/metrics": HUB,
      "/ws": { target: HUB, ws: true },
    },
  },
  test: {
    // Files of browser tests mostly wait, each for its own hub and browser.
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: "unit", include: ["src/**/*.test.ts"] } },
      {
        extends: true,
        test: {
          name: "browser",
          include: ["tests/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
