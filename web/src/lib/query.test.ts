import { expect, test } from "vitest";

import type { HubEvent } from "./client";
import { parse } from "./query";

const upload: HubEvent = {
  offset: 1,
  topic: "locanext.events",
  id: "e1",
  source: "locanext",
  type: "file_upload",
  time: "2026-11-20T12:00:00Z",
  data: { user: "John", file: { name: "menu list.xlsx", size: 7 }, ok: null },
};

const wants = (query: string) => parse(query)(upload);

test("fields, data and free text are matched, all terms together", () => {
  for (const query of [
    "",
    "   ",
    "type:file_upload user:john",
    "MENU",
    "file.size:7",
    'file.name:"menu list.xlsx"',
    "topic:locanext.*",
    "file.name:*list*",
    "ok:null",
    "-type:other",
  ]) {
    expect(wants(query), query).toBe(true);
  }
  for (const query of [
    "type:file",
    "user:jo",
    "type:file_upload user:mary",
    "-user:john",
    "nothing.there:1",
    "topic:locanext.*x",
    "file.size.deeper:7",
    "toString:x",
    "__proto__:x",
  ]) {
    expect(wants(query), query).toBe(false);
  }
});

test("a half-typed query never throws", () => {
  const query = 'type:"file_up -user: ** :x "" a:b:c';
  for (let length = 0; length <= query.length; length += 1)
    expect(typeof wants(query.slice(0, length))).toBe("boolean");
});
