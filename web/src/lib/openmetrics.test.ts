import { expect, test } from "vitest";

import { parse, value } from "./openmetrics";

test("samples with and without labels are read, comments are not", () => {
  const samples = parse(
    '# HELP pulsehub_limit_hits Limits.\npulsehub_limit_hits_total{limit="body",odd="a\\"b\\\\c}"} 3\npulsehub_views 1.5e1\n\n# EOF\n',
  );
  expect(samples).toEqual([
    { name: "pulsehub_limit_hits_total", labels: { limit: "body", odd: 'a"b\\c}' }, value: 3 },
    { name: "pulsehub_views", labels: {}, value: 15 },
  ]);
  expect([value(samples, "pulsehub_views"), value(samples, "nothing")]).toEqual([15, undefined]);
});
