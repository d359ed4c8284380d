import { execFileSync } from "node:child_process";

import { expect, test } from "vitest";

import { LANGUAGES, snippet } from "./snippets";

const draft = {
  topic: "demo.hello",
  type: "a 'quoted' $HOME `type`",
  data: { text: 'it\'s "quoted" \\ \n </script> ünï 🎈 ${x}' },
};

test("what a shell makes of the curl line is the event, whatever is in it", () => {
  const line = snippet("curl", "http://127.0.0.1:8080", draft);
  const script = `curl() { printf '%s\\0' "$@"; }; TOKEN=t; ${line}`;
  const words = execFileSync("bash", ["-c", script], { encoding: "utf8" }).split("\0");
  expect(words.slice(0, 3)).toEqual(["-H", "Authorization: Bearer t", "-d"]);
  expect(JSON.parse(words[3] ?? "")).toEqual(draft);
  expect(words[4]).toBe("http://127.0.0.1:8080/api/v1/publish");
});

test("the JavaScript sends the event", async () => {
  const program = snippet("JavaScript", "http://hub.example", draft);
  const sent: { url: string; body: string }[] = [];
  const fetch = (url: string, { body }: { body: string }) => {
    sent.push({ url, body });
    return { json: () => ({}) };
  };
  const run = new Function("fetch", "token", "console", `return (async () => { ${program} })()`);
  await run(fetch, "t", { log: () => {} });
  expect(sent[0]?.url).toBe("http://hub.example/api/v1/publish");
  expect(JSON.parse(sent[0]?.body ?? "")).toEqual(draft);
});

test("the Python sends the event", () => {
  const program = snippet("Python", "http://hub.example", draft);
  const fake =
    "import urllib.request, io\n" +
    "def urlopen(request):\n    return io.BytesIO(request.data)\n" +
    "urllib.request.urlopen = urlopen\n";
  const script = `${fake}${program.replace("print(json.load(", "print(json.dumps(json.load(").replace(/\)$/, "))")}`;
  const said = execFileSync("python3", ["-c", script], {
    encoding: "utf8",
    env: { ...process.env, TOKEN: "t" },
  });
  expect(JSON.parse(said)).toEqual(draft);
});

test("there is a snippet in every language", () => {
  for (const language of LANGUAGES) expect(snippet(language, "http://h", draft)).toContain("/api/v1/publish");
});
