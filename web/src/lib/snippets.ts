// An event as a command or program that publishes it, ready to be pasted.

/** What a snippet publishes. */
export interface Draft {
  topic: string;
  type?: string;
  key?: string;
  data: unknown;
}

export const LANGUAGES = ["curl", "Python", "JavaScript"] as const;
export type Language = (typeof LANGUAGES)[number];

export function snippet(language: Language, origin: string, draft: Draft): string {
  const url = `${origin}/api/v1/publish`;
  const json = JSON.stringify(draft);
  switch (language) {
    case "curl":
      return `curl -H "Authorization: Bearer $TOKEN" -d ${shellQuoted(json)} ${shellQuoted(url)}`;
    case "Python":
      return [
        "import json, os, urllib.request",
        "request = urllib.request.Request(",
        `    ${JSON.stringify(url)},`,
        `    data=${pythonQuoted(json)}.encode(),`,
        '    headers={"Authorization": "Bearer " + os.environ["TOKEN"], "Content-Type": "application/json"},',
        ")",
        "print(json.load(urllib.request.urlopen(request)))",
      ].join("\n");
    case "JavaScript":
      return [
        `const answer = await fetch(${JSON.stringify(url)}, {`,
        '  method: "POST",',
        '  headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },',
        `  body: JSON.stringify(${json}),`,
        "});",
        "console.log(await answer.json());",
      ].join("\n");
  }
}

/** A shell takes everything between single quotes as it is (POSIX, 2.2.2). */
function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** JSON's escapes are Python's, too, apart from surrogate pairs, which are left as they are. */
function pythonQuoted(text: string): string {
  return JSON.stringify(text);
}
