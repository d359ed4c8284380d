// What the filter of a feed means: `type:file_upload user:john "two words" -topic:noise.*`.

import type { HubEvent } from "./client";

/** Whether an event is wanted. */
export type Matcher = (event: HubEvent) => boolean;

/** Not what the hub itself made of other events: a feed of everything would show all of it again and again. */
export const notDerived: Matcher = (event) => event.type !== "projection" || event.source !== "hub";

const TERM = /(-?)(?:([\w.-]+):)?(?:"([^"]*)"|(\S+))/g;
const FIELDS = new Set(["topic", "type", "source", "key", "id"]);

/** All terms must hold. A term without a field looks into everything; an unknown field into `data`. */
export function parse(query: string): Matcher {
  const terms: Matcher[] = [];
  for (const [, minus, field, quoted, plain] of query.matchAll(TERM)) {
    const wanted = (quoted ?? plain ?? "").toLowerCase();
    if (wanted === "") continue;
    const matches = field === undefined ? anywhere(wanted) : inField(field, wanted);
    terms.push(minus === "-" ? (event) => !matches(event) : matches);
  }
  return (event) => terms.every((matches) => matches(event));
}

function anywhere(wanted: string): Matcher {
  return (event) =>
    [event.topic, event.type, event.source, event.key].some((text) => text?.toLowerCase().includes(wanted)) ||
    JSON.stringify(event.data)?.toLowerCase().includes(wanted) === true;
}

function inField(field: string, wanted: string): Matcher {
  const holds = wanted.includes("*") ? glob(wanted) : (text: string) => text === wanted;
  if (FIELDS.has(field)) {
    return (event) => holds(String(event[field as keyof HubEvent] ?? "").toLowerCase());
  }
  const path = field.split(".");
  return (event) => {
    let value: unknown = event.data;
    for (const name of path) {
      if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return false;
      value = (value as Record<string, unknown>)[name];
    }
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return holds(text.toLowerCase());
  };
}

/** `*` is any run of characters. Walks instead of a regular expression, which a long text could stall. */
function glob(pattern: string): (text: string) => boolean {
  const [start = "", ...parts] = pattern.split("*");
  const end = parts.pop() ?? "";
  return (text) => {
    if (!text.startsWith(start)) return false;
    let from = start.length;
    for (const part of parts) {
      const found = text.indexOf(part, from);
      if (found < 0) return false;
      from = found + part.length;
    }
    return text.length - end.length >= from && text.endsWith(end);
  };
}
